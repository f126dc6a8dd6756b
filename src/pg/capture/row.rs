//! A changed row as JSON texts.

use pgrx::pg_sys;

use super::column::Column;
use super::value;

/// Bytes of a value up to which it is fetched to be compared: two of them must fit in memory.
const MAX_COMPARED: usize = 16 * 1024 * 1024;

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
/// is the same and its address is not, which happens when a value is assigned anew; a huge one then counts as changed.
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
                let size = value::size(old);
                size != value::size(new) || size > MAX_COMPARED || value::bytes(old) != value::bytes(new)
            }
            -2 => std::ffi::CStr::from_ptr(a.cast()) != std::ffi::CStr::from_ptr(b.cast()),
            length => slice(a, length as usize) != slice(b, length as usize),
        }
    }
}

/// Appends the object of these columns. False: it is longer than `limit`, and then what was appended is of no use.
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
        let room = limit.saturating_sub(out.len() - start);
        // SAFETY: the caller's promise: the datum is of the column's type.
        let fits = unsafe {
            let size = if column.length == -1 { value::size(datum) } else { 0 };
            column.writer.write(out, datum, size, room)
        };
        if !fits {
            return false;
        }
    }
    out.push(b'}');
    out.len() - start <= limit
}
