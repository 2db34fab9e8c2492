//! Whatever form is sent, it is refused or becomes one JSON object; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::front::query::input_of;

fuzz_target!(|data: &[u8]| {
    // An action that is there, with lists, structures and numbers, so that members are reached.
    let mut form = b"Action=AssumeRole&Version=2011-06-15&".to_vec();
    form.extend_from_slice(data);
    for form in [data, &form] {
        if let Some(input) = input_of(form) {
            let read: Result<serde_json::Map<String, serde_json::Value>, _> =
                serde_json::from_slice(input.expose());
            assert!(read.is_ok());
        }
    }
});
