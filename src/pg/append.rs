//! Appending rows to a table of our own with one call of its access method, below SQL, as COPY does it.
//!
//! For tables without defaults, triggers or row security that matter here. No user code runs, and the caller needs no right on
//! the table. CHECK constraints are not evaluated: the caller's types must hold them.

use pgrx::pg_sys;

use super::columns::{attribute, attribute_name};

unsafe extern "C-unwind" {
    /// commands/sequence.h: `nextval` without its check of rights.
    fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// The next value of a sequence.
pub(super) fn nextval(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: inside a transaction; the boundary turns errors into unwinding.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
}

/// A text in the current memory context.
pub(super) fn text(value: &[u8]) -> pg_sys::Datum {
    // SAFETY: copies the bytes.
    unsafe {
        let size = value.len() + pg_sys::VARHDRSZ;
        let pointer: *mut pg_sys::varlena = pg_sys::palloc(size).cast();
        pgrx::varlena::set_varsize_4b(pointer, size as i32);
        pointer.cast::<u8>().add(pg_sys::VARHDRSZ).copy_from_nonoverlapping(value.as_ptr(), value.len());
        pg_sys::Datum::from(pointer)
    }
}

/// Rows of one table that are to be appended, in the memory context that was current at [`Rows::of`].
pub(super) struct Rows<const COLUMNS: usize> {
    desc: pg_sys::TupleDesc,
    /// Where the columns stand in the table.
    places: [Option<usize>; COLUMNS],
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
}

impl<const COLUMNS: usize> Rows<COLUMNS> {
    /// Rows with values for these columns; others, which a later version may have, are null.
    ///
    /// # Safety
    /// `desc` describes the table.
    unsafe fn of(desc: pg_sys::TupleDesc, columns: &[&str; COLUMNS]) -> Self {
        // SAFETY: the descriptor is copied, so that the slots need no reference to the relation's own.
        unsafe {
            let desc = pg_sys::CreateTupleDescCopy(desc);
            let count = (*desc).natts as usize;
            let places = columns
                .map(|name| (0..count).find(|at| attribute_name(attribute(desc, *at)) == name.as_bytes()));
            let (values, nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
            Self { desc, places, values, nulls, slots: Vec::new() }
        }
    }

    /// Adds a row.
    ///
    /// # Safety
    /// The values are of the columns' types; what they point to is alive.
    pub(super) unsafe fn push(&mut self, row: [Option<pg_sys::Datum>; COLUMNS]) {
        for (place, value) in self.places.iter().zip(row) {
            if let Some(at) = *place {
                self.values[at] = value.unwrap_or(pg_sys::Datum::null());
                self.nulls[at] = value.is_none();
            }
        }
        // SAFETY: the arrays have as many elements as the descriptor has columns.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.desc, self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            let slot = pg_sys::MakeSingleTupleTableSlot(self.desc, &raw const pg_sys::TTSOpsHeapTuple);
            pg_sys::ExecStoreHeapTuple(tuple, slot, false);
            self.slots.push(slot);
        }
    }
}

/// Appends the rows that `fill` makes to the table. Keeps its lock until the end of the transaction, like any INSERT.
///
/// # Safety
/// A transaction with an active snapshot is open (TOAST wants one). `fill` allocates in the current memory context, which
/// outlives this call.
pub(super) unsafe fn append<const COLUMNS: usize>(
    table: pg_sys::Oid,
    columns: &[&str; COLUMNS],
    fill: impl FnOnce(&mut Rows<COLUMNS>),
) {
    // SAFETY: all of it is what COPY does to insert a batch. On error the abort releases locks and relations.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let mut rows = Rows::of((*relation).rd_att, columns);
        fill(&mut rows);
        pg_sys::heap_multi_insert(
            relation,
            rows.slots.as_mut_ptr(),
            rows.slots.len() as i32,
            pg_sys::GetCurrentCommandId(true),
            0,
            std::ptr::null_mut(),
        );
        index(relation, &rows.slots);
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}

/// Adds the inserted rows to the table's indexes.
///
/// # Safety
/// `heap_multi_insert` has put the rows' addresses into the slots.
unsafe fn index(relation: pg_sys::Relation, slots: &[*mut pg_sys::TupleTableSlot]) {
    // SAFETY: what COPY does.
    unsafe {
        let estate = pg_sys::CreateExecutorState();
        let info: *mut pg_sys::ResultRelInfo =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::ResultRelInfo>()).cast();
        (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        pg_sys::InitResultRelInfo(info, relation, 0, std::ptr::null_mut(), 0);
        pg_sys::ExecOpenIndices(info, false);
        for slot in slots {
            pg_sys::ExecInsertIndexTuples(
                info,
                *slot,
                estate,
                false,
                false,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                #[cfg(not(feature = "pg15"))]
                false,
            );
        }
        pg_sys::ExecCloseIndices(info);
        pg_sys::FreeExecutorState(estate);
    }
}
