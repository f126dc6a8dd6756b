//! The columns of a table, as far as capture needs to know them.

use pgrx::pg_sys;

use super::value::Writer;
use crate::json;
use crate::pg::columns::{attribute, attribute_name};

/// A column of the table.
pub(super) struct Column {
    /// Its position, counted from 0.
    pub(super) at: usize,
    /// `"name":`
    pub(super) label: Vec<u8>,
    pub(super) by_value: bool,
    /// As in pg_type: -1 for a varlena, -2 for a C string.
    pub(super) length: i16,
    pub(super) writer: Writer,
}

impl Column {
    /// `None` for a dropped column.
    ///
    /// # Safety
    /// `at` is a column of `desc`; `context` lives longer than the column.
    pub(super) unsafe fn new(
        desc: pg_sys::TupleDesc,
        at: usize,
        context: pg_sys::MemoryContext,
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let attribute = unsafe { attribute(desc, at) };
        if attribute.attisdropped {
            return None;
        }
        // A virtual generated column has no value in a trigger's row.
        #[cfg(feature = "pg18")]
        if attribute.attgenerated as u8 == b'v' {
            return None;
        }
        let mut label = Vec::new();
        json::push_string(&mut label, attribute_name(attribute));
        label.push(b':');
        Some(Self {
            at,
            label,
            by_value: attribute.attbyval,
            length: attribute.attlen,
            // SAFETY: the caller's promise.
            writer: unsafe { Writer::of(attribute.atttypid, context) },
        })
    }
}

/// Where the column of this name stands.
///
/// # Safety
/// `desc` is a tuple descriptor.
pub(super) unsafe fn position(desc: pg_sys::TupleDesc, name: &[u8]) -> Option<usize> {
    // SAFETY: `at` stays below `natts`.
    unsafe {
        (0..(*desc).natts as usize).find(|at| {
            let attribute = attribute(desc, *at);
            !attribute.attisdropped && attribute_name(attribute) == name
        })
    }
}

/// A memory context that is deleted with its owner.
pub(super) struct Context(pub(super) pg_sys::MemoryContext);

impl Context {
    pub(super) fn new() -> Self {
        // SAFETY: a child of the top context lives until it is deleted.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"webhook_pg plan".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            )
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nothing that lives in it outlives the plan.
        unsafe { pg_sys::MemoryContextDelete(self.0) };
    }
}
