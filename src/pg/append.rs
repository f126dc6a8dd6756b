//! Appending rows to a table of our own with one call of its access method, below SQL, as COPY does it.
//!
//! For tables without defaults, triggers or row security that matter here. No user code runs, and the caller needs no right on
//! the table. CHECK constraints are not evaluated: the caller's types must hold them.

use std::rc::Rc;

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

/// What is known of a table to which rows are appended, for as long as its definition does not change.
pub(super) struct Target<const COLUMNS: usize> {
    /// A copy, so that tuples need no reference to the relation's own.
    desc: pg_sys::TupleDesc,
    /// Where the columns stand in the table.
    places: [Option<usize>; COLUMNS],
    /// Its only index, if it has no expression and no predicate: then no executor is needed to maintain it.
    index: Option<Index>,
    context: pg_sys::MemoryContext,
}

struct Index {
    oid: pg_sys::Oid,
    /// The positions of its columns in the table.
    key: Vec<usize>,
    info: *mut pg_sys::IndexInfo,
}

impl<const COLUMNS: usize> Target<COLUMNS> {
    /// Rows get values for these columns; others, which a later version may have, are null.
    ///
    /// # Safety
    /// `relation` is an open table.
    pub(super) unsafe fn of(relation: pg_sys::Relation, columns: &[&str; COLUMNS]) -> Self {
        // SAFETY: what is made lives in a context of its own, a child of one that lives as long as the backend.
        unsafe {
            let context = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"webhook_pg append".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = context;
            let desc = pg_sys::CreateTupleDescCopy((*relation).rd_att);
            let index = Index::only_one_of(relation);
            pg_sys::CurrentMemoryContext = before;
            let count = (*desc).natts as usize;
            let places = columns
                .map(|name| (0..count).find(|at| attribute_name(attribute(desc, *at)) == name.as_bytes()));
            Self { desc, places, index, context }
        }
    }
}

impl<const COLUMNS: usize> Drop for Target<COLUMNS> {
    fn drop(&mut self) {
        // SAFETY: made by `of`, and nothing that lives in it outlives this.
        unsafe { pg_sys::MemoryContextDelete(self.context) };
    }
}

impl Index {
    /// # Safety
    /// `relation` is an open table; the result lives as long as the current memory context.
    unsafe fn only_one_of(relation: pg_sys::Relation) -> Option<Self> {
        // SAFETY: the index is locked while it is looked at; `ii_IndexAttrNumbers` has as many elements as it says.
        unsafe {
            let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
            let oid = list.iter_oid().next().filter(|_| list.len() == 1)?;
            let index = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let info = pg_sys::BuildIndexInfo(index);
            let ready = (*(*index).rd_index).indisready;
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            let count = usize::try_from((*info).ii_NumIndexAttrs).ok()?;
            let numbers = &(*info).ii_IndexAttrNumbers;
            let key: Option<Vec<usize>> =
                numbers.iter().take(count).map(|number| usize::try_from(number - 1).ok()).collect();
            let plain = ready
                && (*info).ii_Predicate.is_null()
                && (*info).ii_Expressions.is_null()
                && (*info).ii_ExclusionOps.is_null()
                && (*info).ii_Unique;
            Some(Self { oid, key: key.filter(|_| plain)?, info })
        }
    }
}

/// Rows of one table that are to be appended, in the memory context that is current.
pub(super) struct Rows<'a, const COLUMNS: usize> {
    target: &'a Target<COLUMNS>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    tuples: Vec<pg_sys::HeapTuple>,
    /// Of each row, the values of the index's columns.
    keys: Vec<(pg_sys::Datum, bool)>,
}

impl<'a, const COLUMNS: usize> Rows<'a, COLUMNS> {
    fn of(target: &'a Target<COLUMNS>) -> Self {
        // SAFETY: the target's own descriptor.
        let count = unsafe { (*target.desc).natts } as usize;
        let (values, nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
        Self { target, values, nulls, tuples: Vec::new(), keys: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Safety
    /// The values are of the columns' types; what they point to is alive.
    pub(super) unsafe fn push(&mut self, row: [Option<pg_sys::Datum>; COLUMNS]) {
        for (place, value) in self.target.places.iter().zip(row) {
            if let Some(at) = *place {
                self.values[at] = value.unwrap_or(pg_sys::Datum::null());
                self.nulls[at] = value.is_none();
            }
        }
        if let Some(index) = &self.target.index {
            self.keys.extend(index.key.iter().map(|at| (self.values[*at], self.nulls[*at])));
        }
        // SAFETY: the arrays have as many elements as the descriptor has columns.
        self.tuples.push(unsafe {
            pg_sys::heap_form_tuple(self.target.desc, self.values.as_mut_ptr(), self.nulls.as_mut_ptr())
        });
    }
}

/// Appends the rows that `fill` makes to the table. `target` is asked what is known of the open table. Keeps its lock until the
/// end of the transaction, like any INSERT.
///
/// # Safety
/// A transaction with an active snapshot is open (TOAST wants one). `fill` allocates in the current memory context, which
/// outlives this call. `target` answers what [`Target::of`] says of this table now.
pub(super) unsafe fn append<const COLUMNS: usize>(
    table: pg_sys::Oid,
    target: impl FnOnce(pg_sys::Relation) -> Rc<Target<COLUMNS>>,
    fill: impl FnOnce(&mut Rows<COLUMNS>),
) {
    // SAFETY: all of it is what COPY does to insert a batch. On error the abort releases locks and relations.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let target = target(relation);
        let mut rows = Rows::of(&target);
        fill(&mut rows);
        match (&target.index, rows.tuples.as_slice()) {
            (Some(index), [tuple]) => {
                let command = pg_sys::GetCurrentCommandId(true);
                pg_sys::heap_insert(relation, *tuple, command, 0, std::ptr::null_mut());
                insert_keys(relation, index, &mut rows.keys, std::iter::once((**tuple).t_self));
            }
            _ => insert_many(relation, &target, &mut rows),
        }
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}

/// # Safety
/// As for [`append`], with the table open.
unsafe fn insert_many<const COLUMNS: usize>(
    relation: pg_sys::Relation,
    target: &Target<COLUMNS>,
    rows: &mut Rows<COLUMNS>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let slot = |tuple: &pg_sys::HeapTuple| {
            let slot = pg_sys::MakeSingleTupleTableSlot(target.desc, &raw const pg_sys::TTSOpsHeapTuple);
            pg_sys::ExecStoreHeapTuple(*tuple, slot, false);
            slot
        };
        let mut slots: Vec<*mut pg_sys::TupleTableSlot> = rows.tuples.iter().map(slot).collect();
        pg_sys::heap_multi_insert(
            relation,
            slots.as_mut_ptr(),
            slots.len() as i32,
            pg_sys::GetCurrentCommandId(true),
            0,
            std::ptr::null_mut(),
        );
        match &target.index {
            Some(index) => {
                insert_keys(relation, index, &mut rows.keys, slots.iter().map(|slot| (**slot).tts_tid));
            }
            None => index_all(relation, &slots),
        }
    }
}

/// Adds rows that stand at these places to the table's only index.
///
/// # Safety
/// The keys are of the index's columns, as many for each row.
unsafe fn insert_keys(
    relation: pg_sys::Relation,
    index: &Index,
    keys: &mut [(pg_sys::Datum, bool)],
    places: impl Iterator<Item = pg_sys::ItemPointerData>,
) {
    // SAFETY: what ExecInsertIndexTuples does for an index without expression and predicate.
    unsafe {
        let open = pg_sys::index_open(index.oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let (mut values, mut nulls) = (
            [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize],
            [true; pg_sys::INDEX_MAX_KEYS as usize],
        );
        for (key, mut place) in keys.chunks(index.key.len()).zip(places) {
            for ((value, null), from) in values.iter_mut().zip(&mut nulls).zip(key) {
                (*value, *null) = *from;
            }
            pg_sys::index_insert(
                open,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                &mut place,
                relation,
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                false,
                index.info,
            );
        }
        pg_sys::index_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}

/// Adds the inserted rows to the table's indexes, whatever they are.
///
/// # Safety
/// `heap_multi_insert` has put the rows' addresses into the slots.
unsafe fn index_all(relation: pg_sys::Relation, slots: &[*mut pg_sys::TupleTableSlot]) {
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
