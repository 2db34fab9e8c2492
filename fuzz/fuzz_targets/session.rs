//! Whatever is presented as a session token, it opens to nothing: no input knows the key.
//!
//! Input: the access key id, a line feed, the token.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::envelope::session::{Sessions, account_of};
use strongroom::secret::Key;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (id, token) = text.split_once('\n').unwrap_or((text, ""));
    let sessions = Sessions::new(Key::take(&mut [7; 32]));
    assert!(sessions.open(id, token).is_err());
    if let Some(account) = account_of(id) {
        assert_eq!(account.len(), 12);
    }
});
