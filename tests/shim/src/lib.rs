//! A PKCS#11 module for tests: it passes every call on to the module that
//! `STRONGROOM_SHIM_MODULE` names, and fails as it is told to.
//!
//! `STRONGROOM_SHIM_DIRECTORY` names a folder. In it a test puts, and replaces, the file `faults`
//! (see [`faults`]), which is read at every call. The shim appends to the file `calls` one line a
//! call: the function's name, and ` *` if a fault struck.

#![expect(non_snake_case, reason = "PKCS#11 names its functions so")]
#![expect(clippy::disallowed_methods, reason = "it dawdles and crashes because it is told to")]

mod faults;
mod functions;
mod values;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_OK, Pkcs11};
use faults::Effect;
use std::sync::OnceLock;

/// The list of functions of the module behind. It is never unloaded.
fn behind() -> &'static CK_FUNCTION_LIST {
    static BEHIND: OnceLock<(Pkcs11, &'static CK_FUNCTION_LIST)> = OnceLock::new();
    let (_, list) = BEHIND.get_or_init(|| {
        let path = faults::variable("STRONGROOM_SHIM_MODULE");
        let mut list = std::ptr::null_mut();
        // SAFETY: this is a PKCS#11 module, loaded as such; its list lives as long as it is loaded,
        // which is as long as this process.
        unsafe {
            let module = Pkcs11::new(path).expect("the module behind can be loaded");
            assert_eq!(module.C_GetFunctionList(&mut list), CKR_OK, "the module behind has a list");
            (module, list.as_ref().expect("a list"))
        }
    });
    list
}

/// One call of `function`, which `forward` makes in the module behind.
fn injected(function: &str, forward: impl Fn(&CK_FUNCTION_LIST) -> CK_RV) -> CK_RV {
    let Some(effect) = faults::strike(function) else { return forward(behind()) };
    match effect {
        Effect::Answer(value) => value,
        Effect::DoneBut(value) => {
            forward(behind());
            value
        }
        Effect::Delay(time) => {
            std::thread::sleep(time);
            forward(behind())
        }
        Effect::Hang => {
            faults::released(function);
            forward(behind())
        }
        Effect::Crash => std::process::abort(),
    }
}

/// The module's one symbol. No fault strikes it: it is asked for before a library is initialised.
///
/// # Safety
/// `list` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    // SAFETY: the caller's duty.
    match unsafe { list.as_mut() } {
        Some(list) => {
            *list = (&raw const functions::LIST).cast_mut();
            CKR_OK
        }
        None => CKR_ARGUMENTS_BAD,
    }
}
