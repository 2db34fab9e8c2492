//! Whatever a secret holds, it is refused or written again with a new password and the rest unchanged.
//!
//! Input: the new password, a line feed, the secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use strongroom::rotate::secret_json::{MAX_SECRET, SecretJson};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((password, secret)) = text.split_once('\n') else { return };
    let Ok(mut read) = SecretJson::read(secret.as_bytes()) else { return };
    drop((read.login(), read.account(), read.master_arn()));
    assert_ne!(read.port(), Ok(Some(0)));
    read.set("password", password);
    let Ok(written) = read.write() else {
        assert!(text.len() * 6 > MAX_SECRET);
        return;
    };
    let again = SecretJson::read(written.expose()).unwrap();
    let set = again.text("password").unwrap().unwrap();
    assert_eq!(set.expose(), password.as_bytes());
    // Numbers beyond a double are kept, and are no Value.
    let (Ok(mut before), Ok(mut after)) = (
        serde_json::from_str::<Value>(secret),
        serde_json::from_slice::<Value>(written.expose()),
    ) else {
        return;
    };
    for value in [&mut before, &mut after] {
        value.as_object_mut().unwrap().remove("password");
    }
    assert_eq!(before, after);
});
