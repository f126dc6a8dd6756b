//! What events carry beside the row: rows that it refers to, and what functions say of it.
//!
//! Evaluated when the change is captured, as the invoker, all of an event with one snapshot that sees the change; each in a
//! subtransaction, so that one that fails is null and the user's statement goes on.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::rc::Rc;

use pgrx::prelude::*;

use super::catalog::{self, Tables};
use super::column::{Column, Context, position};
use super::pinned::Pinned;
use super::query::Query;
use super::row::{self, Values};
use super::value;
use crate::json;
use crate::pg::columns::attribute_name;
use crate::pg::encoding::{self, Text};
use crate::pg::transaction::subtransaction;

const ROW: &str = include_str!("../../../sql/statements/expand_row.sql");
const FUNCTION: &str = include_str!("../../../sql/statements/expand_function.sql");

/// One name of an attachment's `expand`.
pub(super) struct Expansion {
    /// In the database's encoding.
    name: Vec<u8>,
    source: Source,
}

enum Source {
    /// The row that a foreign key refers to.
    Row { query: Query, key: Vec<usize>, filters: Vec<Filter>, shape: RefCell<Option<Rc<Shape>>> },
    /// What a function of the row says.
    Function { query: Query, search_path: CString },
    /// The foreign key is gone since it was attached.
    Nothing,
}

/// What an attachment of the referenced table lets through: whoever keeps a column out of that table's events does not want it
/// to leave in other events either.
struct Filter {
    columns: Option<Vec<Vec<u8>>>,
    exclude: Vec<Vec<u8>>,
}

/// How referenced rows are written, as long as they look like this.
struct Shape {
    desc: pg_sys::TupleDesc,
    columns: Vec<Column>,
    _context: Context,
}

/// What stands in the attachment.
pub(super) struct Wanted {
    pub(super) names: Vec<Vec<u8>>,
    pub(super) sources: Vec<Vec<u8>>,
    /// Schemas in which functions find what they name.
    pub(super) path: Vec<Vec<u8>>,
    /// The table that was attached.
    pub(super) attached: pg_sys::Oid,
}

/// A changed row.
pub(super) struct Changed<'a> {
    pub(super) tuple: pg_sys::HeapTuple,
    pub(super) desc: pg_sys::TupleDesc,
    pub(super) values: &'a Values,
}

impl Wanted {
    /// Works the expansions out against the table, and adds the tables on whose definition they depend. A name that is a
    /// captured column's yields to the column.
    ///
    /// # Safety
    /// `relation` is an open, locked table.
    pub(super) unsafe fn expansions(
        self,
        relation: pg_sys::Relation,
        tables: &Tables,
        columns: &[Column],
        depends: &mut Vec<pg_sys::Oid>,
    ) -> Vec<Expansion> {
        let mut list = Vec::new();
        for (name, source) in self.names.iter().zip(&self.sources) {
            let mut label = Vec::new();
            push_label(&mut label, name);
            if columns.iter().any(|column| column.label == label) {
                continue;
            }
            // SAFETY: the caller's promise.
            let source = unsafe {
                match position((*relation).rd_att, source) {
                    Some(at) => reference(relation, at, tables, depends),
                    None => self.function(relation, source, depends),
                }
            };
            list.push(Expansion { name: name.clone(), source });
        }
        list
    }

    /// # Safety
    /// As for [`expansions`](Self::expansions).
    unsafe fn function(
        &self,
        relation: pg_sys::Relation,
        function: &[u8],
        depends: &mut Vec<pg_sys::Oid>,
    ) -> Source {
        // SAFETY: the caller's promise; catalog lookups.
        unsafe {
            let Some(row_type) = qualified(self.attached) else { return Source::Nothing };
            depends.push(self.attached);
            let text = encoding::statement(FUNCTION, &[("row_type", &row_type), ("function", function)]);
            let types = vec![(*(*relation).rd_rel).reltype];
            Source::Function { query: Query::new(text, types), search_path: path(&self.path) }
        }
    }
}

/// The settings text of a list of schemas, temporary objects last.
fn path(schemas: &[Vec<u8>]) -> CString {
    let mut text = Vec::new();
    for schema in schemas.iter().filter_map(|schema| CString::new(schema.as_slice()).ok()) {
        // SAFETY: answers a NUL-terminated text, which is copied.
        text.extend_from_slice(
            unsafe { CStr::from_ptr(pg_sys::quote_identifier(schema.as_ptr())) }.to_bytes(),
        );
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(b"pg_temp");
    CString::new(text).unwrap_or_default()
}

/// The name of a table with its schema, quoted; none if it is gone.
fn qualified(table: pg_sys::Oid) -> Option<Vec<u8>> {
    // SAFETY: catalog lookups; the text is copied.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table));
        if name.is_null() || schema.is_null() {
            return None;
        }
        Some(CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name)).to_bytes().to_vec())
    }
}

/// The foreign key of this column: of several the one with the fewest columns, and the oldest of those (PostgreSQL adds one for
/// each partition of a referenced table).
///
/// # Safety
/// `relation` is an open, locked table; what is returned lives as long as its cache entry.
pub(in crate::pg) unsafe fn foreign_key(
    relation: pg_sys::Relation,
    at: usize,
) -> Option<pg_sys::ForeignKeyCacheInfo> {
    // SAFETY: the caller's promise; the list's elements are foreign keys.
    unsafe {
        let list = pg_sys::RelationGetFKeyList(relation);
        let keys = pgrx::PgList::<pg_sys::ForeignKeyCacheInfo>::from_pg(list);
        let has = |key: &pg_sys::ForeignKeyCacheInfo| {
            key.conkey.iter().take(key.nkeys as usize).any(|number| usize::try_from(number - 1) == Ok(at))
        };
        keys.iter_ptr().map(|key| *key).filter(has).min_by_key(|key| (key.nkeys, key.conoid.to_u32()))
    }
}

/// # Safety
/// `relation` is an open, locked table and `at` one of its columns.
unsafe fn reference(
    relation: pg_sys::Relation,
    at: usize,
    tables: &Tables,
    depends: &mut Vec<pg_sys::Oid>,
) -> Source {
    // SAFETY: the caller's promise; catalog lookups, whose texts are copied.
    unsafe {
        let Some(foreign) = foreign_key(relation, at) else { return Source::Nothing };
        let Some(table) = qualified(foreign.confrelid) else { return Source::Nothing };
        depends.push(foreign.confrelid);
        let (mut key, mut types, mut condition) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..foreign.nkeys as usize {
            let Ok(own) = usize::try_from(foreign.conkey[n] - 1) else { return Source::Nothing };
            let column = pg_sys::get_attname(foreign.confrelid, foreign.confkey[n], true);
            let operator = pg_sys::get_opname(foreign.conpfeqop[n]);
            let schema = operator_schema(foreign.conpfeqop[n]);
            if column.is_null() || operator.is_null() || schema.is_null() {
                return Source::Nothing;
            }
            let text = |name: *const c_char| CStr::from_ptr(name).to_bytes();
            condition.extend_from_slice(if n > 0 { b" AND r." } else { b"r." });
            condition.extend_from_slice(text(pg_sys::quote_identifier(column)));
            condition.extend_from_slice(b" OPERATOR(");
            condition.extend_from_slice(text(pg_sys::quote_identifier(schema)));
            condition.push(b'.');
            condition.extend_from_slice(text(operator));
            condition.extend_from_slice(format!(") ${}", n + 1).as_bytes());
            key.push(own);
            types.push(value::base_type(crate::pg::columns::attribute((*relation).rd_att, own).atttypid));
        }
        let only: &[u8] =
            if pg_sys::get_rel_relkind(foreign.confrelid) as u8 == b'p' { b"" } else { b"ONLY " };
        let text = encoding::statement(ROW, &[("only", only), ("table", &table), ("condition", &condition)]);
        let mut filters = Vec::new();
        catalog::scan(tables.attachment, None, |row| {
            if row.oid("table_name") == Some(foreign.confrelid) {
                let (columns, exclude) = (row.texts("columns"), row.texts("exclude").unwrap_or_default());
                filters.push(Filter { columns, exclude });
            }
        });
        Source::Row { query: Query::new(text, types), key, filters, shape: RefCell::new(None) }
    }
}

/// # Safety
/// A catalog lookup inside a transaction.
unsafe fn operator_schema(operator: pg_sys::Oid) -> *mut c_char {
    // SAFETY: the tuple is released after its field was read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::OPEROID as i32,
            pg_sys::Datum::from(operator),
        );
        if tuple.is_null() {
            return std::ptr::null_mut();
        }
        let schema = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_operator>()).oprnamespace;
        pg_sys::ReleaseSysCache(tuple);
        pg_sys::get_namespace_name(schema)
    }
}

fn push_label(out: &mut Vec<u8>, name: &[u8]) {
    json::push_string(out, name);
    out.push(b':');
}

/// Appends the object of all expansions of a row. False: it is longer than `limit`, and then what was appended is of no use.
///
/// # Safety
/// The row is of the table that the expansions were made for.
pub(super) unsafe fn write(out: &mut Vec<u8>, expansions: &[Expansion], row: &Changed, limit: usize) -> bool {
    // SAFETY: popped below; after an error PostgreSQL pops it. The counter makes the change itself visible.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    // SAFETY: the caller's promise.
    let fits = unsafe { write_all(out, expansions, row, limit) };
    // SAFETY: the one pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    fits
}

/// # Safety
/// As for [`write`], with a snapshot active.
unsafe fn write_all(out: &mut Vec<u8>, expansions: &[Expansion], row: &Changed, limit: usize) -> bool {
    let start = out.len();
    out.push(b'{');
    for (at, expansion) in expansions.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_label(out, &expansion.name);
        let end = out.len();
        let room = limit.saturating_sub(end - start);
        // SAFETY: the caller's promise; what was appended before an error is cut off.
        match unsafe { expansion.source.append(out, row, room) } {
            Ok(true) => {}
            Ok(false) => return false,
            Err(message) => {
                ereport!(
                    WARNING,
                    PgSqlErrorCode::ERRCODE_WARNING,
                    encoding::message(format!(
                        "expansion \"{}\" failed and is sent as null",
                        Text::from(expansion.name.clone()).plain()
                    )),
                    encoding::message(message)
                );
                out.truncate(end);
                out.extend_from_slice(b"null");
            }
        }
    }
    out.push(b'}');
    out.len() - start <= limit
}

impl Source {
    /// Appends the value. `Ok(false)`: it is longer than `limit`.
    ///
    /// # Safety
    /// As for [`write`].
    unsafe fn append(&self, out: &mut Vec<u8>, row: &Changed, limit: usize) -> Result<bool, String> {
        // SAFETY: the caller's promise. An error leaves nothing half done but bytes in `out`.
        unsafe {
            match self {
                Self::Nothing => {
                    out.extend_from_slice(b"null");
                    Ok(true)
                }
                Self::Row { query, key, filters, shape } => {
                    let Some(mut key) = key.iter().map(|at| row.values.at(*at)).collect::<Option<Vec<_>>>()
                    else {
                        out.extend_from_slice(b"null");
                        return Ok(true);
                    };
                    subtransaction(|| {
                        query.run(&mut key, |found| match found {
                            Some((tuple, desc)) => {
                                let shape = Shape::cached(shape, desc, filters);
                                let mut values = Values::default();
                                values.read(tuple, desc);
                                row::write_object(out, shape.columns.iter(), &values, limit)
                            }
                            None => push_null(out),
                        })
                    })
                }
                Self::Function { query, search_path } => subtransaction(|| {
                    let _pinned = Pinned::with_path(search_path);
                    let datum = pg_sys::heap_copy_tuple_as_datum(row.tuple, row.desc);
                    query.run(&mut [datum], |found| {
                        let Some((tuple, desc)) = found else { return push_null(out) };
                        let mut null = false;
                        let json = pg_sys::SPI_getbinval(tuple, desc, 1, &mut null);
                        if null {
                            return push_null(out);
                        }
                        let text = value::bytes(json);
                        out.extend_from_slice(text);
                        text.len() <= limit
                    })
                }),
            }
        }
    }
}

fn push_null(out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(b"null");
    true
}

impl Shape {
    /// The shape of this result, made anew when it looks different: the statement follows the table's definition.
    ///
    /// # Safety
    /// `desc` describes a result at hand.
    unsafe fn cached(
        cache: &RefCell<Option<Rc<Self>>>,
        desc: pg_sys::TupleDesc,
        filters: &[Filter],
    ) -> Rc<Self> {
        // SAFETY: both descriptors are alive.
        let same = |shape: &Rc<Self>| unsafe { pg_sys::equalTupleDescs(shape.desc, desc) };
        if let Some(shape) = cache.borrow().as_ref().filter(|shape| same(shape)) {
            return shape.clone();
        }
        let context = Context::new();
        // SAFETY: the copy lives in the shape's context, as do the writers.
        let shape = unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = context.0;
            let desc = pg_sys::CreateTupleDescCopy(desc);
            pg_sys::CurrentMemoryContext = before;
            let columns = (0..(*desc).natts as usize)
                .filter(|at| {
                    let name = attribute_name(crate::pg::columns::attribute(desc, *at));
                    filters.iter().all(|filter| filter.lets(name))
                })
                .filter_map(|at| Column::new(desc, at, context.0))
                .collect();
            Rc::new(Self { desc, columns, _context: context })
        };
        *cache.borrow_mut() = Some(shape.clone());
        shape
    }
}

impl Filter {
    fn lets(&self, name: &[u8]) -> bool {
        let named = |list: &Vec<Vec<u8>>| list.iter().any(|column| column == name);
        self.columns.as_ref().is_none_or(named) && !named(&self.exclude)
    }
}
