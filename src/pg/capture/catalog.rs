//! Reading the extension's private tables from a writer's backend.
//!
//! The writer has no rights on them, and needs none: they are scanned as PostgreSQL scans its catalogs, with the newest
//! committed state (whatever snapshot the writer's transaction holds) and without running any SQL.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::pg::columns::{attribute, attribute_name};

/// The oids of the private tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    pub(super) attachment: pg_sys::Oid,
    pub(super) endpoint: pg_sys::Oid,
    pub(super) installation: pg_sys::Oid,
    pub(super) outbox: pg_sys::Oid,
    pub(super) outbox_seq: pg_sys::Oid,
}

impl Tables {
    /// Looks them up by name; `None` while the extension is absent, or half gone.
    pub(super) fn find() -> Option<Self> {
        // SAFETY: catalog lookups inside a transaction; the names are literals.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"webhook".as_ptr(), true);
            if schema == pg_sys::InvalidOid {
                return None;
            }
            let table = |name: &CStr| {
                let oid = pg_sys::get_relname_relid(name.as_ptr(), schema);
                (oid != pg_sys::InvalidOid).then_some(oid)
            };
            Some(Self {
                attachment: table(c"attachment")?,
                endpoint: table(c"endpoint")?,
                installation: table(c"installation")?,
                outbox: table(c"outbox")?,
                outbox_seq: table(c"outbox_seq")?,
            })
        }
    }
}

/// One row of a private table, its columns found by name so that an older or newer schema does no harm.
pub(super) struct Tuple<'a> {
    desc: pg_sys::TupleDesc,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Tuple<'_> {
    fn datum(&self, name: &str) -> Option<pg_sys::Datum> {
        let at = (0..self.values.len()).find(|at| {
            // SAFETY: a column of the open table.
            attribute_name(unsafe { attribute(self.desc, *at) }) == name.as_bytes()
        })?;
        (!self.nulls[at]).then(|| self.values[at])
    }

    /// A bigint.
    pub(super) fn int8(&self, name: &str) -> Option<i64> {
        self.datum(name).map(|datum| datum.value() as i64)
    }

    /// An oid or regclass.
    pub(super) fn oid(&self, name: &str) -> Option<pg_sys::Oid> {
        self.datum(name).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    /// A text, in the server's encoding.
    pub(super) fn text(&self, name: &str) -> Option<Vec<u8>> {
        // SAFETY: the column is a text.
        self.datum(name).map(|datum| unsafe { bytes_of(datum) })
    }

    /// A text[] without its nulls.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        let datum = self.datum(name)?;
        let (mut items, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the column is a text[]; both result arrays have `count` elements.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            pg_sys::deconstruct_array(
                array.cast(),
                pg_sys::TEXTOID,
                -1,
                false,
                b'i' as std::ffi::c_char,
                &mut items,
                &mut nulls,
                &mut count,
            );
            Some(
                (0..count as usize)
                    .filter(|at| !*nulls.add(*at))
                    .map(|at| bytes_of(*items.add(at)))
                    .collect(),
            )
        }
    }
}

/// # Safety
/// The datum is a non-null text.
unsafe fn bytes_of(datum: pg_sys::Datum) -> Vec<u8> {
    // SAFETY: the caller's promise; detoasting leaves a plain or short varlena.
    unsafe {
        let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(text).to_vec()
    }
}

/// Hands each row of a private table to `each`, or only the row with this id.
pub(super) fn scan(table: pg_sys::Oid, id: Option<i64>, mut each: impl FnMut(&Tuple)) {
    // SAFETY: a catalog-style scan inside a transaction. The lock is released at once: a writer that keeps one would
    // block DDL on the extension for the length of its transaction. On error the abort closes everything.
    unsafe {
        let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        if relation.is_null() {
            return;
        }
        let desc = (*relation).rd_att;
        let count = (*desc).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            let row = Tuple { desc, values: &values, nulls: &nulls };
            if id.is_none() || row.int8("id") == id {
                each(&row);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
}
