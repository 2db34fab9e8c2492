//! The one symbol by which a PKCS#11 module is entered; everything else is Kryoptic's.

use kryoptic_lib::fns::general::fn_get_function_list;
use kryoptic_lib::pkcs11::{CK_FUNCTION_LIST_PTR_PTR, CK_RV};

/// PKCS#11 3.1, section 5.4.4.
#[expect(unsafe_code, reason = "a module is entered by the name of a symbol")]
#[unsafe(no_mangle)]
pub extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    fn_get_function_list(list)
}
