//! Texts in the database's encoding, and as UTF-8, which is all that Rust and receivers know.
//!
//! Captured texts stay in the outbox as the database has them; whoever reads them converts. No direction ever fails: an event
//! that cannot be read would never be delivered. pgrx's own conversions panic over text that is not UTF-8.

use std::ffi::{CStr, CString};

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, UnboxDatum};
use pgrx::pg_sys::pg_enc::{PG_SQL_ASCII, PG_UTF8};
use pgrx::prelude::*;

/// Bytes that are converted at a time.
const CHUNK: usize = 16 * 1024;
/// MAX_CONVERSION_GROWTH of mb/pg_wchar.h.
const GROWTH: usize = 4;

/// A text of the database, in its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(Vec<u8>);

impl Text {
    /// The text for the database; characters that its encoding lacks become `?`.
    pub(super) fn of(text: &str) -> Self {
        Self(to_server(text))
    }

    /// A text that PostgreSQL wrote.
    pub(super) fn stored(text: &CStr) -> Self {
        Self(text.to_bytes().to_vec())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As UTF-8; a byte that means nothing in the encoding becomes the character of that number.
    pub(super) fn plain(&self) -> String {
        to_utf8(&self.0, |out, byte| out.push(char::from(byte)))
    }

    /// The same for JSON text, in which such bytes become escapes (`\u00e9`).
    pub(super) fn json(&self) -> String {
        to_utf8(&self.0, |out, byte| out.push_str(&format!("\\u{byte:04x}")))
    }
}

/// ASCII, which all encodings contain: other characters as escapes (`\u{e9}`). For error messages, which must be valid in every
/// encoding, and whose way through pgrx is a Rust string.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\u{fffd}' => out.push('?'),
            _ if char.is_ascii() => out.push(char),
            _ => out.extend(char.escape_unicode()),
        }
    }
    out
}

/// A message as the database's clients can read it.
pub(super) fn message(text: String) -> String {
    match database() {
        PG_UTF8 | PG_SQL_ASCII => text,
        _ => ascii(&text),
    }
}

/// A statement with each `{name}` replaced by its value, in one pass: what a value holds is not taken for a name.
pub(super) fn statement(template: &str, values: &[(&str, &[u8])]) -> CString {
    let mut out = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, tail) = rest.split_at(at);
        out.extend_from_slice(before.as_bytes());
        let known = values.iter().find_map(|(name, value)| {
            Some((value, tail.strip_prefix('{')?.strip_prefix(name)?.strip_prefix('}')?))
        });
        if let Some((value, after)) = known {
            out.extend_from_slice(value);
            rest = after;
        } else {
            out.push(b'{');
            rest = &tail[1..];
        }
    }
    out.extend_from_slice(rest.as_bytes());
    // Neither names nor conditions can hold a zero byte: they come from texts of PostgreSQL.
    CString::new(out).unwrap_or_default()
}

fn database() -> pg_sys::pg_enc::Type {
    // SAFETY: reads a global of this backend.
    unsafe { pg_sys::GetDatabaseEncoding() as pg_sys::pg_enc::Type }
}

fn to_utf8(text: &[u8], mut strange: impl FnMut(&mut String, u8)) -> String {
    let database = database();
    let is_utf8 = matches!(database, PG_UTF8 | PG_SQL_ASCII) || text.is_ascii();
    if is_utf8 && let Ok(text) = std::str::from_utf8(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    if is_utf8 {
        for chunk in text.utf8_chunks() {
            out.push_str(chunk.valid());
            chunk.invalid().iter().for_each(|byte| strange(&mut out, *byte));
        }
        return out;
    }
    convert(database, PG_UTF8, text, |part| match part {
        Part::Converted(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Part::Strange(character) => character.iter().for_each(|byte| strange(&mut out, *byte)),
    });
    out
}

fn to_server(text: &str) -> Vec<u8> {
    let database = database();
    if matches!(database, PG_UTF8 | PG_SQL_ASCII) || text.is_ascii() {
        return text.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    convert(PG_UTF8, database, text.as_bytes(), |part| match part {
        Part::Converted(bytes) => out.extend_from_slice(bytes),
        Part::Strange(_) => out.push(b'?'),
    });
    out
}

enum Part<'a> {
    Converted(&'a [u8]),
    /// A character without an equivalent.
    Strange(&'a [u8]),
}

/// Converts a text by PostgreSQL's own conversion, in parts. Some encodings have none to or from UTF-8 (MULE_INTERNAL): then
/// only ASCII is converted.
fn convert(
    from: pg_sys::pg_enc::Type,
    to: pg_sys::pg_enc::Type,
    text: &[u8],
    mut take: impl FnMut(Part<'_>),
) {
    let (from, to) = (from as i32, to as i32);
    // SAFETY: a catalog lookup; whoever reads or writes texts has a transaction open.
    let conversion = unsafe { pg_sys::FindDefaultConversionProc(from, to) };
    let mut buffer = vec![0u8; CHUNK * GROWTH + 1];
    let mut rest = text;
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(CHUNK)];
        let done = if conversion == pg_sys::InvalidOid {
            let ascii = chunk.iter().take_while(|byte| byte.is_ascii()).count();
            take(Part::Converted(&chunk[..ascii]));
            ascii
        } else {
            // SAFETY: the conversion stops, without an error, before what it cannot convert, be it a character that the
            // end of the chunk cuts. It writes a zero byte after at most GROWTH bytes for each of the chunk.
            let done = unsafe {
                pg_sys::pg_do_encoding_conversion_buf(
                    conversion,
                    from,
                    to,
                    chunk.as_ptr().cast_mut(),
                    chunk.len() as i32,
                    buffer.as_mut_ptr(),
                    buffer.len() as i32,
                    true,
                )
            };
            let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(0);
            take(Part::Converted(&buffer[..end]));
            usize::try_from(done).unwrap_or(0).min(chunk.len())
        };
        rest = &rest[done..];
        if done == 0 {
            let (strange, after) = rest.split_at(first_character(from, rest));
            take(Part::Strange(strange));
            rest = after;
        }
    }
}

/// Bytes of the first character of a text that has one.
fn first_character(encoding: i32, text: &[u8]) -> usize {
    if text.len() == 1 {
        return 1;
    }
    // SAFETY: looks at the first two bytes at most (GB18030), which are there.
    let length = unsafe { pg_sys::pg_encoding_mblen(encoding, text.as_ptr().cast()) };
    usize::try_from(length).unwrap_or(1).clamp(1, text.len())
}

/// Bytes in the database's encoding.
impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller promises a text; a copy that was fetched or decompressed is freed.
        unsafe {
            let stored: *mut pg_sys::varlena = datum.cast_mut_ptr();
            let text = pg_sys::pg_detoast_datum_packed(stored);
            let bytes = pgrx::varlena::varlena_to_byte_slice(text).to_vec();
            if !std::ptr::eq(text, stored) {
                pg_sys::pfree(text.cast());
            }
            Some(Self(bytes))
        }
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(super::append::text(&self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }

    fn is_compatible_with(other: pg_sys::Oid) -> bool {
        matches!(other, pg_sys::TEXTOID | pg_sys::VARCHAROID)
    }
}

// SAFETY: a text's datum is read as one. Elements of an array are not toasted.
unsafe impl UnboxDatum for Text {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self::As<'src>
    where
        Self: 'src,
    {
        // SAFETY: the caller's promise.
        unsafe { Self::from_datum(datum.sans_lifetime(), false) }.unwrap_or_else(|| Self(Vec::new()))
    }
}

// SAFETY: a text's datum is read as one; functions that take one without Option are STRICT.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| Self(Vec::new()))
    }
}

// SAFETY: answers a text's datum.
unsafe impl BoxRet for Text {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: allocated in the caller's memory context.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

pgrx::impl_sql_translatable!(Text, "text");

/// A jsonb, read.
pub(super) struct Jsonb(pub(super) serde_json::Value);

// SAFETY: a jsonb's datum is read as one; functions that take one without Option are STRICT.
unsafe impl<'fcx> ArgAbi<'fcx> for Jsonb {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Self(serde_json::Value::Null))
    }
}

impl FromDatum for Jsonb {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller promises a jsonb; its output function answers JSON text.
        let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)]) };
        text.and_then(|text| serde_json::from_str(&Text::stored(text).json()).ok()).map(Self)
    }
}

pgrx::impl_sql_translatable!(Jsonb, "jsonb");
