-- The look-up index: where in the log what stands. Everything here can be made anew from the log.
-- Places are bytes from the start of the log. A row holds many of them,
-- packed as packed.rs says, so that a record costs bytes and not rows.
CREATE TABLE list (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    kind INTEGER NOT NULL,
    value TEXT NOT NULL,
    -- The name at the end of an ARN, by which the list is found too.
    name TEXT,
    UNIQUE (account, kind, value)
) STRICT;
CREATE INDEX list_name ON list (account, kind, name) WHERE name IS NOT NULL;
-- The records of a list within one second (since 1970), from `place` on.
CREATE TABLE entry (
    list INTEGER NOT NULL,
    second INTEGER NOT NULL,
    place INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (list, second, place)
) STRICT, WITHOUT ROWID;
-- The event ids and request ids of one day that have the same first byte, from `place` on.
CREATE TABLE id (
    first INTEGER NOT NULL,
    day INTEGER NOT NULL,
    place INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (first, day, place)
) STRICT, WITHOUT ROWID;
-- How far the log has been read, and the last line of that: which log it was.
CREATE TABLE progress (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;
INSERT INTO progress VALUES (1, 0, 0, x'');
