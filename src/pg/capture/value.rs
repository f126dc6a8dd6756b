//! One value as JSON, the way `to_json` writes it, but the same whatever the session has set.
//!
//! The types that rows are mostly made of have writers of their own. Arrays, composites and types with a cast to json go
//! through `to_json` itself, every other type through its output function. Both run as the invoker.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::pinned::{self, Pinned};
use crate::json;
use crate::pg::encoding;
use crate::pg::transaction::subtransaction;

/// Content of a varlena from which on PostgreSQL's functions may fail to make a text of it: the text may be hundreds of times longer,
/// and none can have a gigabyte.
const LARGE: usize = 1024 * 1024;
/// Content of a binary form beyond which nothing is written.
const MAX_BINARY: usize = 64 * 1024 * 1024;

/// How the values of a column are written.
pub(super) enum Writer {
    Bool,
    Int2,
    Int4,
    Int8,
    Text,
    Name,
    Uuid,
    Bytea,
    Json,
    Date,
    Timestamp,
    Timestamptz,
    /// The output function; its text is JSON as it is.
    Verbatim(Function),
    /// The output function; its text is a JSON number, or a string where JSON has no such number (NaN, Infinity).
    Number(Function),
    /// The output function, for a JSON string.
    Output(Function),
    /// The output function under IntervalStyle iso_8601.
    Interval(Function),
    /// The output function under pinned settings, for a JSON string.
    Pinned(Function),
    /// `to_json`, under pinned settings unless no setting can matter. Of an array whose elements have a fixed length, that length.
    ToJson(Function, bool, Option<usize>),
    /// The same by somebody else's code, which may fail.
    Foreign(Box<Writer>),
}

/// A function ready to call. What it caches lives in its plan's memory context.
pub(super) struct Function(Box<pg_sys::FmgrInfo>);

impl Function {
    /// # Safety
    /// `context` lives longer than the function.
    unsafe fn new(oid: pg_sys::Oid, context: pg_sys::MemoryContext) -> Self {
        let mut info = Box::<pg_sys::FmgrInfo>::default();
        // SAFETY: the box gives it a stable address.
        unsafe { pg_sys::fmgr_info_cxt(oid, &mut *info, context) };
        Self(info)
    }

    /// `to_json` for this type of argument. It asks the calling expression for the type, so it gets one.
    ///
    /// # Safety
    /// `context` lives longer than the function.
    unsafe fn to_json(argument: pg_sys::Oid, context: pg_sys::MemoryContext) -> Self {
        // SAFETY: nodes are built in `context`, and the current context is put back.
        unsafe {
            let mut function = Self::new(pg_sys::Oid::from(pg_sys::F_TO_JSON), context);
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = context;
            let node = pg_sys::makeNullConst(argument, -1, pg_sys::InvalidOid);
            let call = pg_sys::makeFuncExpr(
                pg_sys::Oid::from(pg_sys::F_TO_JSON),
                pg_sys::JSONOID,
                pg_sys::lappend(std::ptr::null_mut(), node.cast()),
                pg_sys::InvalidOid,
                pg_sys::InvalidOid,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
            );
            pg_sys::CurrentMemoryContext = before;
            function.0.fn_expr = call.cast();
            function
        }
    }

    /// Whether it is the output function of text under another name, as for citext.
    ///
    /// # Safety
    /// `context` is as for [`new`](Self::new).
    unsafe fn is_text(&self, context: pg_sys::MemoryContext) -> bool {
        // SAFETY: the caller's promise.
        let text = unsafe { Self::new(pg_sys::Oid::from(pg_sys::F_TEXTOUT), context) };
        self.0.fn_addr.map(|f| f as usize) == text.0.fn_addr.map(|f| f as usize)
    }

    /// Calls an output function.
    ///
    /// # Safety
    /// The datum is of the type the function is for. The result lives in the current memory context.
    unsafe fn text<'a>(&self, datum: pg_sys::Datum) -> &'a [u8] {
        let info = (&raw const *self.0).cast_mut();
        // SAFETY: output functions return a C string; the function manager changes only its own cache in `info`.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(info, datum)) }.to_bytes()
    }
}

/// What `to_json` and we see in a type.
pub(super) fn base_type(oid: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a catalog lookup.
    unsafe { pg_sys::getBaseType(oid) }
}

fn is_built_in(oid: pg_sys::Oid) -> bool {
    oid.to_u32() < pg_sys::FirstNormalObjectId
}

/// Whether the type has a cast to json, by the rule of `to_json`: built-in types are not asked.
fn has_json_cast(oid: pg_sys::Oid) -> bool {
    if is_built_in(oid) {
        return false;
    }
    let mut function = pg_sys::InvalidOid;
    // SAFETY: a catalog lookup.
    let path = unsafe {
        pg_sys::find_coercion_pathway(
            pg_sys::JSONOID,
            oid,
            pg_sys::CoercionContext::COERCION_EXPLICIT,
            &mut function,
        )
    };
    path == pg_sys::CoercionPathType::COERCION_PATH_FUNC && function != pg_sys::InvalidOid
}

/// Whether no setting changes the text of a value of this type.
fn is_plain(oid: pg_sys::Oid) -> bool {
    matches!(
        oid,
        pg_sys::BOOLOID
            | pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::NUMERICOID
            | pg_sys::TEXTOID
            | pg_sys::VARCHAROID
            | pg_sys::BPCHAROID
            | pg_sys::NAMEOID
            | pg_sys::CHAROID
            | pg_sys::OIDOID
            | pg_sys::UUIDOID
            | pg_sys::JSONOID
            | pg_sys::JSONBOID
            | pg_sys::INETOID
            | pg_sys::CIDROID
            | pg_sys::MACADDROID
            | pg_sys::MACADDR8OID
            | pg_sys::BITOID
            | pg_sys::VARBITOID
            | pg_sys::XMLOID
            | pg_sys::TSVECTOROID
            | pg_sys::TSQUERYOID
    )
        // SAFETY: a catalog lookup.
        || unsafe { pg_sys::get_typtype(oid) } == pg_sys::TYPTYPE_ENUM as std::ffi::c_char
}

impl Writer {
    /// Chooses the writer for a type.
    ///
    /// # Safety
    /// `context` lives longer than the writer.
    pub(super) unsafe fn of(declared: pg_sys::Oid, context: pg_sys::MemoryContext) -> Self {
        let oid = base_type(declared);
        let output = || {
            let (mut function, mut varlena) = (pg_sys::InvalidOid, false);
            // SAFETY: a catalog lookup, and the caller's promise about `context`.
            unsafe {
                pg_sys::getTypeOutputInfo(oid, &mut function, &mut varlena);
                Function::new(function, context)
            }
        };
        match oid {
            pg_sys::BOOLOID => Self::Bool,
            pg_sys::INT2OID => Self::Int2,
            pg_sys::INT4OID => Self::Int4,
            pg_sys::INT8OID => Self::Int8,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Self::Text,
            pg_sys::NAMEOID => Self::Name,
            pg_sys::UUIDOID => Self::Uuid,
            pg_sys::BYTEAOID => Self::Bytea,
            pg_sys::JSONOID => Self::Json,
            pg_sys::DATEOID => Self::Date,
            pg_sys::TIMESTAMPOID => Self::Timestamp,
            pg_sys::TIMESTAMPTZOID => Self::Timestamptz,
            pg_sys::JSONBOID => Self::Verbatim(output()),
            pg_sys::FLOAT4OID | pg_sys::FLOAT8OID | pg_sys::NUMERICOID => Self::Number(output()),
            pg_sys::INTERVALOID => Self::Interval(output()),
            // SAFETY: a catalog lookup, and the caller's promise about `context`.
            _ => unsafe {
                let element = match pg_sys::get_element_type(oid) {
                    pg_sys::InvalidOid => oid,
                    element => base_type(element),
                };
                let plain = is_plain(element);
                // Only casts run code that is not C; a composite may hold a value of such a type.
                let foreign = pg_sys::type_is_rowtype(element) || has_json_cast(element);
                let writer = if foreign || element != oid {
                    let length = (element != oid).then(|| usize::try_from(pg_sys::get_typlen(element)).ok());
                    Self::ToJson(Function::to_json(oid, context), !plain, length.flatten())
                } else if plain {
                    Self::Output(output())
                } else {
                    let output = output();
                    if output.is_text(context) { Self::Text } else { Self::Pinned(output) }
                };
                if foreign { Self::Foreign(Box::new(writer)) } else { writer }
            },
        }
    }

    /// The least number of bytes that the JSON of a varlena with this much content can have.
    fn least_bytes(&self, size: usize) -> usize {
        match self {
            Self::Text | Self::Json => size,
            Self::Bytea => size * 2,
            Self::Foreign(writer) => writer.least_bytes(size),
            // Nobody has the time to write a huge one out to learn that it is too long.
            _ if size > MAX_BINARY => usize::MAX,
            // Each element has a comma and at least one more byte. An array's header has less than 64.
            Self::ToJson(_, _, Some(length)) => size.saturating_sub(64) / length * 2,
            // Numbers in an array of jsonb: 12 bytes for three.
            Self::Verbatim(_) => size.saturating_sub(64) / 4,
            // Other binary forms can be up to about 16 times as long as their text.
            _ => size / 16,
        }
    }

    /// Appends a value. False: it is longer than `room` bytes, and then what was appended is of no use. Sizes are looked at
    /// first, so that a value of hundreds of megabytes is not even fetched. `size` is the content of a varlena in bytes,
    /// decompressed; 0 for other types.
    ///
    /// # Safety
    /// The datum is non-null and of the writer's type. What it allocates lives in the current memory context.
    pub(super) unsafe fn write(
        &self,
        out: &mut Vec<u8>,
        datum: pg_sys::Datum,
        size: usize,
        room: usize,
    ) -> bool {
        if self.least_bytes(size) > room {
            return false;
        }
        let start = out.len();
        // SAFETY: the caller's promise. Writing leaves nothing half done but `out`, which is cut back.
        let fits = unsafe {
            match self {
                Self::Foreign(writer) => match subtransaction(|| writer.append(out, datum, room)) {
                    Ok(fits) => fits,
                    Err(_) if size > LARGE => false,
                    Err(message) => {
                        warn(&message);
                        out.truncate(start);
                        out.extend_from_slice(b"null");
                        true
                    }
                },
                // A short binary form may have a text that PostgreSQL cannot hold: an array of long enum labels.
                Self::ToJson(..) if size > LARGE => {
                    subtransaction(|| self.append(out, datum, room)).unwrap_or(false)
                }
                _ => self.append(out, datum, room),
            }
        };
        fits && out.len() - start <= room
    }

    /// Appends a value; only for what PostgreSQL's functions answer it heeds `room`.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    unsafe fn append(&self, out: &mut Vec<u8>, datum: pg_sys::Datum, room: usize) -> bool {
        // SAFETY: the caller's promise: each arm reads the representation of its own type.
        unsafe {
            match self {
                Self::Bool => {
                    out.extend_from_slice(if datum.value() as u8 != 0 { b"true" } else { b"false" });
                }
                Self::Int2 => json::push_int(out, i64::from(datum.value() as i16)),
                Self::Int4 => json::push_int(out, i64::from(datum.value() as i32)),
                Self::Int8 => json::push_int(out, datum.value() as i64),
                Self::Text => json::push_string(out, bytes(datum)),
                Self::Name => json::push_string(out, CStr::from_ptr(datum.cast_mut_ptr()).to_bytes()),
                Self::Uuid => json::push_uuid(out, &*datum.cast_mut_ptr::<[u8; 16]>()),
                Self::Bytea => {
                    let data = bytes(datum);
                    out.reserve(data.len() * 2 + 5);
                    out.extend_from_slice(b"\"\\\\x");
                    json::push_hex(out, data);
                    out.push(b'"');
                }
                Self::Json => out.extend_from_slice(bytes(datum)),
                Self::Date => {
                    if !json::push_date(out, datum.value() as i32) {
                        encode_time(out, datum, pg_sys::DATEOID);
                    }
                }
                Self::Timestamp => {
                    if !json::push_timestamp(out, datum.value() as i64, false) {
                        encode_time(out, datum, pg_sys::TIMESTAMPOID);
                    }
                }
                Self::Timestamptz => {
                    if !json::push_timestamp(out, datum.value() as i64, true) {
                        encode_time(out, datum, pg_sys::TIMESTAMPTZOID);
                    }
                }
                Self::Verbatim(function) => return push(out, function.text(datum), room),
                Self::Number(function) => {
                    let _digits = pinned::float_digits();
                    let text = function.text(datum);
                    if text.last().is_some_and(u8::is_ascii_digit) {
                        out.extend_from_slice(text);
                    } else {
                        json::push_string(out, text);
                    }
                }
                Self::Output(function) => return push_string(out, function.text(datum), room),
                Self::Interval(function) => {
                    let _style = pinned::interval_style();
                    json::push_string(out, function.text(datum));
                }
                Self::Pinned(function) => {
                    let _pinned = Pinned::enter();
                    return push_string(out, function.text(datum), room);
                }
                Self::ToJson(function, pin, _) => {
                    let _pinned = pin.then(Pinned::enter);
                    let info = (&raw const *function.0).cast_mut();
                    let text = bytes(pg_sys::FunctionCall1Coll(info, pg_sys::InvalidOid, datum));
                    return push(out, text, room);
                }
                Self::Foreign(writer) => return writer.append(out, datum, room),
            }
        }
        true
    }
}

/// Appends JSON, unless it is too long: then it is not even copied.
fn push(out: &mut Vec<u8>, json: &[u8], room: usize) -> bool {
    let fits = json.len() <= room;
    if fits {
        out.extend_from_slice(json);
    }
    fits
}

/// Appends a JSON string in the same way.
fn push_string(out: &mut Vec<u8>, text: &[u8], room: usize) -> bool {
    let fits = text.len() <= room;
    if fits {
        json::push_string(out, text);
    }
    fits
}

/// Somebody else's code failed; what it did was undone in its own subtransaction.
fn warn(message: &str) {
    ereport!(
        WARNING,
        PgSqlErrorCode::ERRCODE_WARNING,
        "a value could not be written as JSON and is sent as null",
        encoding::message(format!("Its type's function failed: {message}"))
    );
}

/// The size of a varlena's content, decompressed, without fetching it from its TOAST table.
///
/// # Safety
/// The datum is a non-null varlena.
pub(super) unsafe fn size(datum: pg_sys::Datum) -> usize {
    let varlena = datum.cast_mut_ptr();
    // SAFETY: the caller's promise.
    unsafe {
        // One byte of header: the usual case, at most 126 bytes.
        if pgrx::varlena::varatt_is_1b(varlena) && !pgrx::varlena::varatt_is_1b_e(varlena) {
            return pgrx::varlena::varsize_any_exhdr(varlena);
        }
        pg_sys::toast_raw_datum_size(datum).saturating_sub(pg_sys::VARHDRSZ)
    }
}

/// The content of a varlena, fetched and decompressed if need be.
///
/// # Safety
/// The datum is a non-null varlena; the result lives as long as it, or as the current memory context.
pub(super) unsafe fn bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    let mut text: *mut pg_sys::varlena = datum.cast_mut_ptr();
    // SAFETY: the caller's promise; a packed varlena is plain or short.
    unsafe {
        if pgrx::varlena::varatt_is_1b_e(text) || pgrx::varlena::varatt_is_4b_c(text) {
            text = pg_sys::pg_detoast_datum_packed(text);
        }
        pgrx::varlena::varlena_to_byte_slice(text)
    }
}

/// PostgreSQL's own spelling of a date or time, in UTC.
///
/// # Safety
/// The datum is of the type.
unsafe fn encode_time(out: &mut Vec<u8>, datum: pg_sys::Datum, oid: pg_sys::Oid) {
    // MAXDATELEN
    let mut buffer = [0 as std::ffi::c_char; 129];
    let utc = 0;
    // SAFETY: JsonEncodeDateTime writes at most MAXDATELEN bytes and a zero.
    let text = unsafe { CStr::from_ptr(pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), datum, oid, &utc)) };
    json::push_string(out, text.to_bytes());
}
