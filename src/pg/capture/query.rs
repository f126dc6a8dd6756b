//! A statement that capture runs: made from a file of `sql/statements/`, prepared when it is needed and kept.

use std::cell::Cell;
use std::ffi::CString;

use pgrx::prelude::*;

/// A statement, prepared when it is needed.
pub(super) struct Query {
    text: CString,
    types: Vec<pg_sys::Oid>,
    plan: Cell<pg_sys::SPIPlanPtr>,
}

impl Query {
    /// A statement with parameters of these types.
    pub(super) fn new(text: CString, types: Vec<pg_sys::Oid>) -> Self {
        Self { text, types, plan: Cell::new(std::ptr::null_mut()) }
    }

    /// Runs it with the active snapshot, and hands its only row to `read`.
    ///
    /// # Safety
    /// A snapshot is active. The arguments are of the statement's types. On error the abort of the subtransaction cleans up.
    pub(super) unsafe fn run<R>(
        &self,
        arguments: &mut [pg_sys::Datum],
        read: impl FnOnce(Option<(pg_sys::HeapTuple, pg_sys::TupleDesc)>) -> R,
    ) -> R {
        // SAFETY: what a procedural language does. Read-only: with the snapshot that the caller pushed.
        unsafe {
            pg_sys::SPI_connect();
            if self.plan.get().is_null() {
                let mut types = self.types.clone();
                let plan = pg_sys::SPI_prepare(self.text.as_ptr(), types.len() as i32, types.as_mut_ptr());
                if plan.is_null() {
                    error!("the statement could not be prepared");
                }
                pg_sys::SPI_keepplan(plan);
                self.plan.set(plan);
            }
            let status =
                pg_sys::SPI_execute_plan(self.plan.get(), arguments.as_mut_ptr(), std::ptr::null(), true, 1);
            if status != pg_sys::SPI_OK_SELECT as i32 || pg_sys::SPI_tuptable.is_null() {
                error!("the statement answered {status}");
            }
            let table = &*pg_sys::SPI_tuptable;
            let row = (pg_sys::SPI_processed > 0).then(|| (*table.vals, table.tupdesc));
            let result = read(row);
            pg_sys::SPI_finish();
            result
        }
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        if !self.plan.get().is_null() {
            // SAFETY: kept by `run`, and nothing runs it any more.
            unsafe { pg_sys::SPI_freeplan(self.plan.get()) };
        }
    }
}
