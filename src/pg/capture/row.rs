//! A changed row as JSON texts.

use pgrx::pg_sys;

use super::plan::{Column, Plan};
use super::value;

/// The values of a row.
#[derive(Default)]
pub(super) struct Values {
    datums: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Values {
    /// Takes a row apart.
    ///
    /// # Safety
    /// The tuple is of this descriptor, and outlives the use of the values.
    pub(super) unsafe fn read(&mut self, tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc) {
        // SAFETY: both arrays get room for all columns.
        unsafe {
            let count = (*desc).natts as usize;
            self.datums.resize(count, pg_sys::Datum::null());
            self.nulls.resize(count, true);
            pg_sys::heap_deform_tuple(tuple, desc, self.datums.as_mut_ptr(), self.nulls.as_mut_ptr());
        }
    }

    /// The value of the column at this position, unless it is null.
    pub(super) fn at(&self, at: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[at]).then(|| self.datums[at])
    }

    fn get(&self, column: &Column) -> Option<pg_sys::Datum> {
        self.at(column.at)
    }
}

/// Whether a column's value changed: its bytes, not its meaning. A value in a TOAST table is fetched only if its size
/// is the same and its address is not.
///
/// # Safety
/// Both hold rows of the column's table.
pub(super) unsafe fn changed(column: &Column, old: &Values, new: &Values) -> bool {
    let (old, new) = match (old.get(column), new.get(column)) {
        (None, None) => return false,
        (Some(old), Some(new)) => (old, new),
        _ => return true,
    };
    if column.by_value {
        return old.value() != new.value();
    }
    // SAFETY: the column's length says what the datums point to.
    unsafe {
        let (a, b) = (old.cast_mut_ptr::<u8>(), new.cast_mut_ptr::<u8>());
        let slice =
            |pointer: *mut u8, length: usize| std::slice::from_raw_parts(pointer.cast_const(), length);
        match column.length {
            -1 => {
                let (size_a, size_b) =
                    (pgrx::varlena::varsize_any(a.cast()), pgrx::varlena::varsize_any(b.cast()));
                if size_a == size_b && slice(a, size_a) == slice(b, size_b) {
                    return false;
                }
                pg_sys::toast_raw_datum_size(old) != pg_sys::toast_raw_datum_size(new)
                    || value::bytes(old) != value::bytes(new)
            }
            -2 => std::ffi::CStr::from_ptr(a.cast()) != std::ffi::CStr::from_ptr(b.cast()),
            length => slice(a, length as usize) != slice(b, length as usize),
        }
    }
}

/// Whether the plan wants this update: a watched column changed, or any captured one if none is watched.
///
/// # Safety
/// Both hold rows of the plan's table.
pub(super) unsafe fn update_counts(plan: &Plan, old: &Values, new: &Values) -> bool {
    // SAFETY: the caller's promise.
    plan.watch.as_ref().unwrap_or(&plan.columns).iter().any(|column| unsafe { changed(column, old, new) })
}

/// Appends the object of these columns. False: it is longer than `limit`, and then what was appended is of no use.
/// Sizes are looked at first, so that a value of hundreds of megabytes is not even fetched.
///
/// # Safety
/// `values` holds a row of the columns' table.
pub(super) unsafe fn write_object<'a>(
    out: &mut Vec<u8>,
    columns: impl Iterator<Item = &'a Column>,
    values: &Values,
    limit: usize,
) -> bool {
    let start = out.len();
    out.push(b'{');
    let mut first = true;
    for column in columns {
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(&column.label);
        let Some(datum) = values.get(column) else {
            out.extend_from_slice(b"null");
            continue;
        };
        // SAFETY: the caller's promise: the datum is of the column's type.
        unsafe {
            // Short values (one-byte header) are at most 126 bytes.
            if column.length == -1
                && !is_short(datum)
                && column.writer.least_bytes(datum).saturating_add(out.len() - start) > limit
            {
                return false;
            }
            column.writer.write(out, datum);
        }
        if out.len() - start > limit {
            return false;
        }
    }
    out.push(b'}');
    out.len() - start <= limit
}

/// # Safety
/// The datum is a varlena.
unsafe fn is_short(datum: pg_sys::Datum) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        pgrx::varlena::varatt_is_1b(datum.cast_mut_ptr())
            && !pgrx::varlena::varatt_is_1b_e(datum.cast_mut_ptr())
    }
}
