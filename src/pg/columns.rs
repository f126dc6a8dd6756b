//! The columns of a tuple descriptor.

use std::ffi::CStr;

use pgrx::pg_sys;

/// The description of a column.
///
/// # Safety
/// `desc` is a tuple descriptor, `at` one of its columns counted from 0; the result lives as long as the descriptor.
pub(super) unsafe fn attribute<'a>(desc: pg_sys::TupleDesc, at: usize) -> &'a pg_sys::FormData_pg_attribute {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the caller's promise; the array has `natts` elements.
    unsafe {
        &*(*desc).attrs.as_ptr().add(at)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's promise.
    unsafe {
        &*pg_sys::TupleDescAttr(desc, at as i32)
    }
}

/// The name of a column, in the server's encoding.
pub(super) fn attribute_name(attribute: &pg_sys::FormData_pg_attribute) -> &[u8] {
    // SAFETY: a NameData always ends with a zero byte.
    unsafe { CStr::from_ptr(attribute.attname.data.as_ptr()) }.to_bytes()
}
