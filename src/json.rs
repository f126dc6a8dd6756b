//! JSON text as PostgreSQL's `to_json` writes it, appended to a buffer, for the values a row is mostly made of; and JSON text
//! taken apart without changing its parts.
//!
//! Texts are bytes in the database's encoding: all server encodings contain ASCII and use no ASCII byte inside a longer
//! character, so escaping need not decode them. Times are PostgreSQL's: counted from 2000-01-01.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Days from 0000-03-01 to 2000-01-01 in the proleptic Gregorian calendar.
const EPOCH_DAYS: i64 = 730_425;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Appends a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Appends the inside of a JSON string. What needs no escape is copied in runs, found eight bytes at a time.
pub fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = first_special(rest) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = tail[0];
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                push_hex(out, &[byte]);
            }
        }
        rest = &tail[1..];
    }
    out.extend_from_slice(rest);
}

/// Where the first byte stands that JSON wants escaped.
fn first_special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Classic zero-byte test (Mycroft): may flag a byte after a real hit, never miss one, and the bytewise search settles it.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let mut chunks = text.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(chunk);
        let word = u64::from_le_bytes(bytes);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        if control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) != 0
            && let Some(found) = chunk.iter().position(special)
        {
            return Some(at + found);
        }
        at += 8;
    }
    chunks.remainder().iter().position(special).map(|found| at + found)
}

/// Appends a whole number.
pub fn push_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends bytes as lower-case hex digits.
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    );
}

/// Appends a UUID as a JSON string.
pub fn push_uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    out.push(b'"');
    for (at, range) in [(0, 0..4), (1, 4..6), (2, 6..8), (3, 8..10), (4, 10..16)] {
        if at > 0 {
            out.push(b'-');
        }
        push_hex(out, &bytes[range]);
    }
    out.push(b'"');
}

/// Appends a date, given in days since 2000-01-01, as a JSON string. False, and nothing appended, outside the years 1 to
/// 9999, where PostgreSQL has spellings of its own (BC, infinity).
pub fn push_date(out: &mut Vec<u8>, days: i32) -> bool {
    let Some(date) = civil(i64::from(days)) else { return false };
    out.push(b'"');
    push_ymd(out, date);
    out.push(b'"');
    true
}

/// Appends a timestamp, given in microseconds since 2000-01-01, as an ISO 8601 JSON string, with `+00:00` when it has a
/// zone. False, and nothing appended, outside the years 1 to 9999.
pub fn push_timestamp(out: &mut Vec<u8>, micros: i64, zone: bool) -> bool {
    let Some(date) = civil(micros.div_euclid(DAY)) else { return false };
    let (seconds, fraction) = {
        let time = micros.rem_euclid(DAY);
        (time / 1_000_000, time % 1_000_000)
    };
    out.push(b'"');
    push_ymd(out, date);
    out.push(b'T');
    push_two(out, seconds / 3600);
    out.push(b':');
    push_two(out, seconds / 60 % 60);
    out.push(b':');
    push_two(out, seconds % 60);
    if fraction != 0 {
        out.push(b'.');
        let mut rest = fraction;
        let mut unit = 100_000;
        while rest != 0 {
            out.push(b'0' + (rest / unit) as u8);
            rest %= unit;
            unit /= 10;
        }
    }
    out.extend_from_slice(if zone { b"+00:00\"" } else { b"\"" });
    true
}

/// Year, month and day of a day number, if the year is 1 to 9999. The algorithm is Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    let z = days.checked_add(EPOCH_DAYS)?;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (1..=9999).contains(&year).then_some((year, month, day))
}

fn push_ymd(out: &mut Vec<u8>, (year, month, day): (i64, i64, i64)) {
    push_two(out, year / 100);
    push_two(out, year % 100);
    out.push(b'-');
    push_two(out, month);
    out.push(b'-');
    push_two(out, day);
}

fn push_two(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// The members of an object, each value as it is written. Keeps their order, and names that come twice. `None` for anything
/// else, and for names with half a surrogate pair, which PostgreSQL's json lets pass.
pub fn members(text: &str) -> Option<Vec<(String, &str)>> {
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok().map(|Members(members)| members)
}

/// The items of an array, each as it is written. `None` for anything else.
pub fn items(text: &str) -> Option<Vec<&str>> {
    if !text.trim_ascii_start().starts_with('[') {
        return None;
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// A value as plain text: the contents of a string, nothing for null, JSON text for the rest. A string with half a surrogate
/// pair is no text, and stays JSON.
pub fn plain(text: &str) -> Cow<'_, str> {
    let text = text.trim_ascii();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_or(Cow::Borrowed(text), Cow::Owned),
        Some(b'n') => Cow::Borrowed(""),
        _ => Cow::Borrowed(text),
    }
}

struct Members<'a>(Vec<(String, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_parts_of_a_text_stay_as_they_are_written() {
        let object = r#" {"b": 1.50, "a" : [ 1e400, "x" ], "b": null} "#;
        let parts = members(object).unwrap();
        let expected = [("b", "1.50"), ("a", r#"[ 1e400, "x" ]"#), ("b", "null")];
        assert_eq!(parts.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>(), expected);
        assert_eq!(items(parts[1].1).unwrap(), ["1e400", "\"x\""]);
        assert_eq!((members("[1]"), items("{}"), items("nonsense")), (None, None, None));
        for (text, expected) in
            [(r#""\u00e9\n""#, "é\n"), ("null", ""), (" 1.50 ", "1.50"), (r#""\udc00""#, r#""\udc00""#)]
        {
            assert_eq!(plain(text), expected);
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 7, -1, 10, 1_234_567_890, i64::MAX, i64::MIN] {
            assert_eq!(written(|o| push_int(o, value)), value.to_string());
        }
    }

    #[test]
    fn control_bytes_quotes_and_backslashes_are_escaped() {
        assert_eq!(written(|o| push_string(o, b"a\"b\\c\n\x01\x1f")), r#""a\"b\\c\n\u0001\u001f""#);
    }

    #[test]
    fn a_date_is_iso_8601() {
        assert_eq!(written(|o| assert!(push_date(o, 0))), "\"2000-01-01\"");
        assert_eq!(written(|o| assert!(push_date(o, 59))), "\"2000-02-29\"");
        assert_eq!(written(|o| assert!(push_date(o, -1))), "\"1999-12-31\"");
        assert_eq!(written(|o| assert!(push_date(o, -730_119))), "\"0001-01-01\"");
    }

    #[test]
    fn a_timestamp_is_iso_8601_without_trailing_zeros() {
        assert_eq!(written(|o| assert!(push_timestamp(o, 0, true))), "\"2000-01-01T00:00:00+00:00\"");
        assert_eq!(written(|o| assert!(push_timestamp(o, -1, false))), "\"1999-12-31T23:59:59.999999\"");
        assert_eq!(written(|o| assert!(push_timestamp(o, 1_500_000, false))), "\"2000-01-01T00:00:01.5\"");
    }

    #[test]
    fn years_that_postgresql_spells_its_own_way_are_left_to_it() {
        let mut out = Vec::new();
        assert!(
            !push_date(&mut out, i32::MAX)
                && !push_date(&mut out, i32::MIN)
                && !push_date(&mut out, -730_120)
        );
        assert!(!push_timestamp(&mut out, i64::MAX, true) && !push_timestamp(&mut out, i64::MIN, true));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_reads_back_as_it_was(text in "\\PC*|[\\x00-\\x7f]*") {
            let json = written(|o| push_string(o, text.as_bytes()));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn any_time_reads_back_as_it_was(seconds in -60_000_000_000i64..240_000_000_000, micros in 0i64..1_000_000) {
            let time = seconds * 1_000_000 + micros;
            let json = written(|o| assert!(push_timestamp(o, time, true)));
            let read: jiff::Timestamp = json.trim_matches('"').parse().unwrap();
            prop_assert_eq!(read.as_microsecond() - 946_684_800_000_000, time);
        }
    }
}
