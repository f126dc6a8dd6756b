//! The parameter `expand` of `webhook_attach`: what it names is looked up once, as the caller, and stored by full names.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;
use serde_json::Value;

use super::capture::foreign_key;
use super::encoding::Text;
use crate::error::{Error, Kind, Result};

const MAX_NAMES: usize = 100;
const MAX_NAME: usize = 200;
const HINT: &str = "Write for example {\"account\": \"account_id\", \"tags\": \"contact_tags\"}: a foreign-key column of the table, or \
                    a function of the table's row type that returns json.";

/// What an attachment expands.
#[derive(Default)]
pub(super) struct Expand {
    pub(super) names: Vec<Text>,
    /// For each name a foreign-key column, or a function with its schema.
    pub(super) sources: Vec<Text>,
    /// The schemas in which those functions find what they name: the caller's search path.
    pub(super) path: Vec<Text>,
}

/// Reads the parameter.
///
/// # Errors
/// 22023 for what is not an object of names, 42704 and 42883 for what does not exist, 42809 for functions of other types.
pub(super) fn read(value: &Value, table: pg_sys::Oid) -> Result<Expand> {
    let object = value.as_object().ok_or_else(|| Error::invalid("expand must be an object").hint(HINT))?;
    if object.len() > MAX_NAMES {
        return Err(Error::invalid("expand has too many names")
            .detail(format!("It has {}; {MAX_NAMES} are allowed.", object.len())));
    }
    let mut expand = Expand::default();
    for (name, source) in object {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::invalid("expand has a malformed name")
                .detail(format!("The name is {name:?}."))
                .hint(format!("Use 1 to {MAX_NAME} bytes and no control characters.")));
        }
        if column(table, name).is_some() {
            return Err(Error::invalid("expand has the name of a column")
                .detail(format!("The name is {name:?}."))
                .hint("Choose another name: columns and expansions stand side by side in data."));
        }
        let source = source.as_str().ok_or_else(|| {
            Error::invalid("expand names something that is not a string")
                .detail(format!("It stands under {name:?}."))
                .hint(HINT)
        })?;
        let source = match column(table, source) {
            Some(at) => {
                check_reference(table, at, source)?;
                Text::of(source)
            }
            None => function(table, source)?,
        };
        expand.names.push(Text::of(name));
        expand.sources.push(source);
    }
    expand.path = search_path();
    Ok(expand)
}

/// The position of a column, counted from 0.
fn column(table: pg_sys::Oid, name: &str) -> Option<usize> {
    let text = CString::new(Text::of(name).into_bytes()).ok()?;
    // SAFETY: a catalog lookup; system columns have negative numbers, dropped ones are not found.
    let number = unsafe { pg_sys::get_attnum(table, text.as_ptr()) };
    usize::try_from(number - 1).ok()
}

fn check_reference(table: pg_sys::Oid, at: usize, name: &str) -> Result<()> {
    // SAFETY: the caller has locked the table.
    let found = unsafe {
        let relation = pg_sys::table_open(table, pg_sys::NoLock as pg_sys::LOCKMODE);
        let found = foreign_key(relation, at).is_some();
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        found
    };
    if found {
        return Ok(());
    }
    Err(Error::new(Kind::Undefined, "expand names a column that is not a foreign key")
        .detail(format!("The column is {name:?}."))
        .hint("Add a foreign key, or name a function of the table's row type that returns json."))
}

/// The full name of a function of the table's row type that returns json.
fn function(table: pg_sys::Oid, name: &str) -> Result<Text> {
    let unknown = || {
        Error::new(
            Kind::UndefinedFunction,
            "expand names neither a column nor a function of the table's row type",
        )
        .detail(format!("The name is {name:?}."))
        .hint(HINT)
    };
    let text = CString::new(Text::of(name).into_bytes()).map_err(|_| unknown())?;
    if name.trim().is_empty() {
        return Err(unknown());
    }
    // SAFETY: catalog lookups; the texts are copied. A malformed name is PostgreSQL's own error.
    unsafe {
        let names = pg_sys::stringToQualifiedNameList(
            text.as_ptr(),
            #[cfg(not(feature = "pg15"))]
            std::ptr::null_mut(),
        );
        let mut row_type = pg_sys::get_rel_type_id(table);
        let oid = pg_sys::LookupFuncName(names, 1, &raw mut row_type, true);
        if oid == pg_sys::InvalidOid {
            return Err(unknown());
        }
        let fits = matches!(pg_sys::get_func_rettype(oid), pg_sys::JSONOID | pg_sys::JSONBOID)
            && !pg_sys::get_func_retset(oid)
            && pg_sys::get_func_prokind(oid) as u8 == b'f';
        if !fits {
            return Err(Error::new(
                Kind::WrongObject,
                "expand names a function that does not return one json value",
            )
            .detail(format!("The function is {name:?}."))
            .hint("It must be a plain function of the table's row type that returns json or jsonb."));
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(oid));
        let full = pg_sys::quote_qualified_identifier(schema, pg_sys::get_func_name(oid));
        Ok(Text::stored(CStr::from_ptr(full)))
    }
}

/// The schemas of the caller's search path, temporary ones left out.
fn search_path() -> Vec<Text> {
    // SAFETY: a list of oids in the current memory context; catalog lookups.
    unsafe {
        let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::fetch_search_path(false));
        list.iter_oid()
            .filter(|schema| !pg_sys::isAnyTempNamespace(*schema))
            .map(|schema| pg_sys::get_namespace_name(schema))
            .filter(|name| !name.is_null())
            .map(|name| Text::stored(CStr::from_ptr(name)))
            .collect()
    }
}
