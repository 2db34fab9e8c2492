//! Someone edits the database with the server stopped. Each altered row answers AWS's error for it,
//! the others answer as ever, nothing is deleted, nothing panics.

use crate::appliance::{Appliance, copy};
use crate::client::{Client, base64, unbase64};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::fs;

const READ: &str = "secretsmanager:GetSecretValue";

fn made(client: &mut Client, name: &str) -> String {
    let input = json!({"Name": name, "SecretString": format!("value of {name}")});
    client.ask("secretsmanager:CreateSecret", &input).member("VersionId")
}

fn new_key(client: &mut Client) -> String {
    let made = client.ask("kms:CreateKey", &json!({})).output();
    made["KeyMetadata"]["KeyId"].as_str().expect("a key id").to_owned()
}

fn code(client: &mut Client, operation: &str, input: &Value) -> String {
    let reply = client.ask(operation, input);
    assert!(reply.status < 500, "{operation} {input}: {}", reply.text());
    assert!(!reply.text().contains("value of"), "{operation} {input}: {}", reply.text());
    reply.code()
}

/// Runs one statement that must change exactly one row.
fn edit(database: &Connection, sql: &str, args: impl rusqlite::Params) {
    assert_eq!(database.execute(sql, args).expect(sql), 1, "{sql}");
}

/// Flips one bit of a blob column of one row.
fn flip(database: &Connection, table: &str, column: &str, wheres: &str, byte: usize) {
    let sql = format!("SELECT {column} FROM {table} WHERE {wheres}");
    let mut blob: Vec<u8> = database.query_row(&sql, [], |row| row.get(0)).expect(&sql);
    let len = blob.len();
    blob[byte % len] ^= 1 << (byte % 8);
    edit(database, &format!("UPDATE {table} SET {column} = ?1 WHERE {wheres}"), params![blob]);
}

fn length(database: &Connection, table: &str, column: &str, wheres: &str) -> usize {
    let sql = format!("SELECT {column} FROM {table} WHERE {wheres}");
    let blob: Vec<u8> = database.query_row(&sql, [], |row| row.get(0)).expect(&sql);
    blob.len()
}

/// Exchanges columns between two rows.
fn swap(database: &Connection, table: &str, columns: &[&str], one: &str, other: &str) {
    for column in columns {
        let read = |wheres: &str| -> rusqlite::types::Value {
            let sql = format!("SELECT {column} FROM {table} WHERE {wheres}");
            database.query_row(&sql, [], |row| row.get(0)).expect(&sql)
        };
        let (a, b) = (read(one), read(other));
        edit(database, &format!("UPDATE {table} SET {column} = ?1 WHERE {one}"), params![b]);
        edit(database, &format!("UPDATE {table} SET {column} = ?1 WHERE {other}"), params![a]);
    }
}

fn counts(database: &Connection) -> Vec<i64> {
    ["secret", "version", "kms_key", "alias", "account", "access_key"]
        .iter()
        .map(|table| {
            let sql = format!("SELECT count(*) FROM {table}");
            database.query_row(&sql, [], |row| row.get(0)).expect(&sql)
        })
        .collect()
}

#[test]
fn an_altered_secret_is_refused_wherever_it_is_asked_for() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    let names: Vec<String> = (0..24).map(|n| format!("secret-{n}")).collect();
    for name in &names {
        made(&mut client, name);
    }
    appliance.stop();
    let database = appliance.database();
    let before = counts(&database);
    let row = |n: usize| format!("name = 'secret-{n}'");
    // Bits all over document and MAC.
    for n in 0..8 {
        let column = if n < 5 { "doc" } else { "mac" };
        flip(&database, "secret", column, &row(n), n * 37);
    }
    // A whole row in another's place, document and MAC included.
    swap(&database, "secret", &["doc", "mac"], &row(8), &row(9));
    // Emptied, and cut short.
    edit(&database, "UPDATE secret SET doc = x'' WHERE name = 'secret-10'", []);
    edit(&database, "UPDATE secret SET mac = x'' WHERE name = 'secret-11'", []);
    // What the row is found by.
    edit(&database, "UPDATE secret SET name = 'renamed' WHERE name = 'secret-12'", []);
    edit(&database, "UPDATE secret SET account = '999999999999' WHERE name = 'secret-13'", []);
    // Due for deletion, says the column; the document does not.
    for n in 14..16 {
        edit(&database, &format!("UPDATE secret SET due = 1 WHERE name = 'secret-{n}'"), []);
    }
    // The row's number, which versions hang on.
    edit(&database, "UPDATE secret SET uid = uid + 1 WHERE name = 'secret-16'", []);
    for column in ["created", "changed"] {
        let sql = format!("UPDATE secret SET {column} = -1 WHERE name = 'secret-17'");
        edit(&database, &sql, []);
    }
    drop(database);
    appliance.resume();
    let mut client = appliance.client();

    let every = |name: &str| {
        let id = json!({"SecretId": name});
        let with = |more: Value| {
            let mut input = id.clone();
            for (k, v) in more.as_object().expect("an object") {
                input[k] = v.clone();
            }
            input
        };
        [
            (READ, id.clone()),
            ("secretsmanager:DescribeSecret", id.clone()),
            ("secretsmanager:ListSecretVersionIds", id.clone()),
            ("secretsmanager:PutSecretValue", with(json!({"SecretString": "new"}))),
            ("secretsmanager:UpdateSecret", with(json!({"Description": "new"}))),
            ("secretsmanager:TagResource", with(json!({"Tags": [{"Key": "a", "Value": "b"}]}))),
            ("secretsmanager:DeleteSecret", with(json!({"ForceDeleteWithoutRecovery": true}))),
        ]
    };
    for name in names[..12].iter().map(String::as_str).chain(["renamed"]) {
        for (operation, input) in every(name) {
            let found = code(&mut client, operation, &input);
            assert_eq!(found, "InvalidRequestException", "{operation} {input}");
        }
    }
    for name in &names[12..14] {
        let found = code(&mut client, READ, &json!({"SecretId": name}));
        assert_eq!(found, "ResourceNotFoundException", "{name}");
    }
    // Its number is wrong: whatever is answered, it is no fault of ours, and nobody else's value.
    for (operation, input) in &every("secret-16")[..6] {
        code_or_value(&mut client, operation, input);
    }
    for name in names[14..16].iter().chain(&names[17..]) {
        let reply = client.ask(READ, &json!({"SecretId": name}));
        assert_eq!(reply.member("SecretString"), format!("value of {name}"));
    }
    // A list does not hide what is wrong, nor does it break.
    let listed = client.ask("secretsmanager:ListSecrets", &json!({"MaxResults": 100}));
    assert!(listed.status < 500, "{}", listed.text());
    assert_eq!(client.look("/readyz").status, 200);
    appliance.stop();
    assert_eq!(counts(&appliance.database())[..2], before[..2], "nothing is deleted");
    assert!(!appliance.log().contains("panicked"));
}

fn code_or_value(client: &mut Client, operation: &str, input: &Value) {
    let reply = client.ask(operation, input);
    assert!(reply.status < 500, "{operation} {input}: {}", reply.text());
    if operation == READ && reply.status == 200 {
        let name = input["SecretId"].as_str().expect("a name");
        assert_eq!(reply.member("SecretString"), format!("value of {name}"));
    }
}

#[test]
fn an_altered_version_is_refused_whichever_byte_it_is() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    for name in ["many", "a", "b", "gone", "twice"] {
        made(&mut client, name);
    }
    let second = json!({"SecretId": "twice", "SecretString": "value of twice, the second"});
    client.ask("secretsmanager:PutSecretValue", &second).output();
    appliance.stop();
    let many = "secret = (SELECT uid FROM secret WHERE name = 'many')";
    let (key_len, value_len) = {
        let database = appliance.database();
        (
            length(&database, "version", "data_key", many),
            length(&database, "version", "value", many),
        )
    };
    assert!(key_len > 100 && value_len > 16, "{key_len} {value_len}");
    appliance.resume();
    let mut client = appliance.client();
    let versions: Vec<String> = (0..key_len + value_len)
        .map(|_| {
            let input = json!({"SecretId": "many", "SecretString": "value of many",
                "VersionStages": ["AWSPENDING"]});
            client.ask("secretsmanager:PutSecretValue", &input).member("VersionId")
        })
        .collect();
    appliance.stop();
    let database = appliance.database();
    let before = counts(&database);
    let transaction = database.unchecked_transaction().expect("begun");
    for (n, id) in versions.iter().enumerate() {
        let row = format!("id = '{id}'");
        match n.checked_sub(key_len) {
            None => flip(&database, "version", "data_key", &row, n),
            Some(n) => flip(&database, "version", "value", &row, n),
        }
    }
    transaction.commit().expect("committed");
    let of = |name: &str| format!("secret = (SELECT uid FROM secret WHERE name = '{name}')");
    swap(&database, "version", &["data_key", "value"], &of("a"), &of("b"));
    edit(&database, &format!("DELETE FROM version WHERE {}", of("gone")), []);
    let (one, other) =
        (format!("{} AND row % 2 = 0", of("twice")), format!("{} AND row % 2 = 1", of("twice")));
    swap(&database, "version", &["value"], &one, &other);
    drop(database);
    appliance.resume();
    let mut client = appliance.client();
    for (n, id) in versions.iter().enumerate() {
        let found = code(&mut client, READ, &json!({"SecretId": "many", "VersionId": id}));
        assert_eq!(found, "DecryptionFailure", "byte {n} of {key_len} + {value_len}");
    }
    let value = client.ask(READ, &json!({"SecretId": "many"})).member("SecretString");
    assert_eq!(value, "value of many", "its other version is as it was");
    for (name, expected) in [
        ("a", "DecryptionFailure"),
        ("b", "DecryptionFailure"),
        ("twice", "DecryptionFailure"),
        ("gone", "ResourceNotFoundException"),
    ] {
        assert_eq!(code(&mut client, READ, &json!({"SecretId": name})), expected, "{name}");
    }
    appliance.stop();
    assert_eq!(counts(&appliance.database())[1], before[1] - 1, "nothing more is deleted");
    assert!(!appliance.log().contains("panicked"));
}

#[test]
fn an_altered_key_or_alias_is_refused_and_its_material_stays() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    let keys: Vec<String> = (0..10).map(|_| new_key(&mut client)).collect();
    let mut sealed = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let input = json!({"KeyId": key, "Plaintext": base64(b"value of k")});
        sealed.push(client.ask("kms:Encrypt", &input).member("CiphertextBlob"));
        let input = json!({"AliasName": format!("alias/k{n}"), "TargetKeyId": key});
        assert_eq!(client.ask("kms:CreateAlias", &input).status, 200);
    }
    let material = appliance.token_objects();
    appliance.stop();
    let database = appliance.database();
    let before = counts(&database);
    let row = |n: usize| format!("id = '{}'", keys[n]);
    flip(&database, "kms_key", "doc", &row(0), 40);
    flip(&database, "kms_key", "doc", &row(1), 400);
    flip(&database, "kms_key", "mac", &row(2), 7);
    swap(&database, "kms_key", &["doc", "mac"], &row(3), &row(4));
    edit(&database, &format!("UPDATE kms_key SET due = 1 WHERE {}", row(5)), []);
    flip(&database, "alias", "doc", "name = 'alias/k6'", 30);
    swap(&database, "alias", &["doc", "mac"], "name = 'alias/k7'", "name = 'alias/k8'");
    edit(&database, &format!("UPDATE alias SET key = '{}' WHERE name = 'alias/k9'", keys[6]), []);
    // An intent that nobody noted: to destroy a key that is in use.
    let doc: Vec<u8> = database
        .query_row(&format!("SELECT doc FROM kms_key WHERE {}", row(9)), [], |r| r.get(0))
        .expect("a key");
    let doc: Value = serde_json::from_slice(&doc).expect("JSON");
    let backing = doc["backing"][0]["id"].as_str().expect("an id").to_owned();
    let intent = json!({"backing_key": backing, "what": "Destroy", "noted": 0}).to_string();
    edit(
        &database,
        "INSERT INTO intent (backing_key, doc, mac) VALUES (?1, ?2, ?3)",
        params![backing, intent.as_bytes(), [0u8; 32]],
    );
    drop(database);
    appliance.resume();
    let mut client = appliance.client();
    for key in &keys[..5] {
        for (operation, input) in [
            ("kms:Encrypt", json!({"KeyId": key, "Plaintext": "AAAA"})),
            ("kms:GenerateDataKey", json!({"KeyId": key, "KeySpec": "AES_256"})),
            ("kms:DescribeKey", json!({"KeyId": key})),
            ("kms:DisableKey", json!({"KeyId": key})),
            ("kms:ScheduleKeyDeletion", json!({"KeyId": key})),
        ] {
            assert_eq!(
                code(&mut client, operation, &input),
                "KMSInvalidStateException",
                "{operation}"
            );
        }
    }
    for (blob, _) in sealed.iter().zip(0..5) {
        let found = code(&mut client, "kms:Decrypt", &json!({"CiphertextBlob": blob}));
        assert_eq!(found, "KMSInvalidStateException");
    }
    for name in ["alias/k6", "alias/k7", "alias/k8"] {
        let input = json!({"KeyId": name, "Plaintext": "AAAA"});
        assert_eq!(code(&mut client, "kms:Encrypt", &input), "KMSInvalidStateException", "{name}");
    }
    // The column is only there to find rows by: the document says where the alias points.
    let input = json!({"KeyId": "alias/k9", "Plaintext": "AAAA"});
    let used = client.ask("kms:Encrypt", &input).member("KeyId");
    assert!(used.ends_with(&keys[9]), "{used}");
    for (key, blob) in keys[5..].iter().zip(&sealed[5..]) {
        let opened = client.ask("kms:Decrypt", &json!({"KeyId": key, "CiphertextBlob": blob}));
        assert_eq!(opened.member("Plaintext"), base64(b"value of k"), "{key}");
    }
    for operation in ["kms:ListKeys", "kms:ListAliases"] {
        let reply = client.ask(operation, &json!({}));
        assert!(reply.status < 500, "{operation}: {}", reply.text());
    }
    appliance.stop();
    assert_eq!(counts(&appliance.database()), before, "nothing is deleted");
    assert_eq!(appliance.token_objects(), material, "no material is destroyed");
    assert!(!appliance.log().contains("panicked"));
}

#[test]
fn an_altered_access_key_proves_nobody() {
    let mut appliance = Appliance::start();
    made(&mut appliance.client(), "kept");
    appliance.stop();
    copy(&appliance.path("store"), &appliance.path("sound"));
    type Edit = fn(&Connection);
    let edits: [(&str, Edit); 4] = [
        ("doc", |d| flip(d, "access_key", "doc", "1", 50)),
        ("mac", |d| flip(d, "access_key", "mac", "1", 5)),
        ("id", |d| edit(d, "UPDATE access_key SET id = 'AKIAXXXXXXXXXXXXXXXX'", [])),
        ("account", |d| flip(d, "account", "doc", "1", 9)),
    ];
    for (what, alter) in edits {
        fs::remove_dir_all(appliance.path("store")).expect("removed");
        copy(&appliance.path("sound"), &appliance.path("store"));
        alter(&appliance.database());
        appliance.resume();
        let reply = appliance.client().ask(READ, &json!({"SecretId": "kept"}));
        assert!(reply.status < 500, "{what}: {}", reply.text());
        if what == "account" {
            assert_eq!(reply.status, 200, "nobody reads it yet");
        } else {
            assert_eq!(reply.code(), "UnrecognizedClientException", "{what}: {}", reply.text());
        }
        appliance.stop();
    }
    assert!(!appliance.log().contains("panicked"));
}

#[test]
fn an_altered_site_is_refused_at_the_start_or_does_no_harm() {
    let mut appliance = Appliance::start();
    made(&mut appliance.client(), "kept");
    appliance.stop();
    copy(&appliance.path("store"), &appliance.path("sound"));
    let len = length(&appliance.database(), "meta", "value", "name = 'site'");
    let mut refused = 0;
    for byte in (0..len).step_by(len / 24) {
        fs::remove_dir_all(appliance.path("store")).expect("removed");
        copy(&appliance.path("sound"), &appliance.path("store"));
        flip(&appliance.database(), "meta", "value", "name = 'site'", byte);
        if appliance.starts() {
            let reply = appliance.client().ask(READ, &json!({"SecretId": "kept"}));
            assert_eq!(reply.member("SecretString"), "value of kept", "byte {byte}");
            appliance.stop();
        } else {
            refused += 1;
        }
    }
    assert!(refused > 8, "{refused}");
    let log = appliance.log();
    assert!(!log.contains("panicked"), "{log}");
    for line in log.lines().filter(|l| l.starts_with("strongroom: ")) {
        assert!(line.len() > 30, "one clear sentence: {line}");
    }
    fs::remove_dir_all(appliance.path("store")).expect("removed");
    copy(&appliance.path("sound"), &appliance.path("store"));
    appliance.resume();
    let value = appliance.client().ask(READ, &json!({"SecretId": "kept"}));
    assert_eq!(value.member("SecretString"), "value of kept");
}

#[test]
fn an_altered_ciphertext_is_invalid_whichever_byte_it_is() {
    let appliance = Appliance::start();
    let mut client = appliance.client();
    let (key, other) = (new_key(&mut client), new_key(&mut client));
    let input = json!({"KeyId": key, "Plaintext": base64(b"value of x"),
        "EncryptionContext": {"a": "b"}});
    let sealed = client.ask("kms:Encrypt", &input).member("CiphertextBlob");
    let mut bytes = unbase64(&sealed);
    let decrypt = |client: &mut Client, bytes: &[u8]| {
        let input = json!({"CiphertextBlob": base64(bytes), "EncryptionContext": {"a": "b"}});
        code(client, "kms:Decrypt", &input)
    };
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            bytes[at] ^= 1 << bit;
            let found = decrypt(&mut client, &bytes);
            // Bytes 2 to 18 name the KMS key. For one that is not there AWS answers as for one that
            // the caller may not use.
            let another_key = (2..19).contains(&at) && found == "AccessDeniedException";
            assert!(found == "InvalidCiphertextException" || another_key, "byte {at}: {found}");
            bytes[at] ^= 1 << bit;
        }
    }
    for len in [1, 2, 3, 20, 98, 99, 114, 115, bytes.len() - 1] {
        assert_eq!(
            decrypt(&mut client, &bytes[..len]),
            "InvalidCiphertextException",
            "cut to {len}"
        );
    }
    bytes.push(0);
    assert_eq!(decrypt(&mut client, &bytes), "InvalidCiphertextException", "one byte more");
    for context in [json!({}), json!({"a": "c"}), json!({"A": "b"}), json!({"a": "b", "c": "d"})] {
        let input = json!({"CiphertextBlob": sealed, "EncryptionContext": context});
        assert_eq!(code(&mut client, "kms:Decrypt", &input), "InvalidCiphertextException");
    }
    let input = json!({"CiphertextBlob": sealed, "KeyId": other, "EncryptionContext": {"a": "b"}});
    assert_eq!(code(&mut client, "kms:Decrypt", &input), "IncorrectKeyException");
    let input = json!({"CiphertextBlob": sealed, "EncryptionContext": {"a": "b"}});
    let opened = client.ask("kms:Decrypt", &input).member("Plaintext");
    assert_eq!(opened, base64(b"value of x"));
}
