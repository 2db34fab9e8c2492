-- The look-up index: where in the log what stands. Everything here can be made anew from the log.
-- Times are milliseconds since 1970, places are bytes from the start of the log.
CREATE TABLE list (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    kind INTEGER NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (account, kind, value)
) STRICT;
CREATE TABLE entry (
    list INTEGER NOT NULL,
    time INTEGER NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (list, time, place)
) STRICT, WITHOUT ROWID;
-- The first eight bytes of event ids and request ids, day by day.
CREATE TABLE id (
    day INTEGER NOT NULL,
    start INTEGER NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (day, start, place)
) STRICT, WITHOUT ROWID;
-- How far the log has been read, and the last line of that: which log it was.
CREATE TABLE progress (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;
INSERT INTO progress VALUES (1, 0, 0, x'');
