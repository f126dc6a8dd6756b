//! JSON text that jsonb takes, for `scope` and `filter` only: what is sent stays exact.
//!
//! jsonb refuses `\u0000`, half a surrogate pair, and numbers beyond PostgreSQL's numeric. The first two become U+FFFD here, the
//! numbers null.

use std::borrow::Cow;

/// Digits before the decimal point that numeric has.
const MAX_WHOLE: i64 = 131_072;
/// Digits behind it.
const MAX_FRACTION: i64 = 16_383;
/// What stands for a character that jsonb does not have, six characters like what it replaces.
const REPLACEMENT: &str = "\\ufffd";

/// The text, changed where jsonb would refuse it. Expects valid JSON; of anything else it changes nothing that matters.
pub fn comparable(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    let mut replace = |from: usize, to: usize, with: &str| {
        out.push_str(&text[copied..from]);
        out.push_str(with);
        copied = to;
    };
    let mut inside = false;
    while let Some(&byte) = bytes.get(at) {
        let mut end = at + 1;
        match byte {
            b'"' => inside = !inside,
            b'\\' if inside => {
                end = at + 2;
                if let Some(unit) = unit(bytes, at) {
                    end = at + 6;
                    let low = unit_is(bytes, end, 0xdc00..=0xdfff);
                    match unit {
                        0xd800..=0xdbff if low => end += 6,
                        0 | 0xd800..=0xdfff => replace(at, end, REPLACEMENT),
                        _ => {}
                    }
                }
            }
            b'-' | b'0'..=b'9' if !inside => {
                let digits = |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                end = at + bytes[at..].iter().take_while(|b| digits(b)).count();
                if !is_numeric(&text[at..end]) {
                    replace(at, end, "null");
                }
            }
            _ => {}
        }
        at = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// The UTF-16 unit of an escape `\uXXXX` that begins here.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
}

fn unit_is(bytes: &[u8], at: usize, range: std::ops::RangeInclusive<u16>) -> bool {
    unit(bytes, at).is_some_and(|unit| range.contains(&unit))
}

/// Whether numeric holds the number.
fn is_numeric(number: &str) -> bool {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    // What does not fit here does not fit there either.
    let Ok(exponent) = exponent.parse::<i32>().map(i64::from) else { return false };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX / 4);
    length(whole.trim_start_matches('-')) + exponent <= MAX_WHOLE
        && length(fraction) - exponent <= MAX_FRACTION
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_jsonb_has_is_left_alone() {
        for text in [
            r#"{"a": [1.50, -0, 1e400, 1E-300, "\n\\u0000 \ud83d\ude00 é"], "b": null}"#,
            r#""\\""#,
            "12345678901234567890",
            "",
        ] {
            assert!(matches!(comparable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_jsonb_refuses_is_replaced_and_nothing_else() {
        for (text, expected) in [
            (r#"{"a\u0000b": "\u0000"}"#, r#"{"a\ufffdb": "\ufffd"}"#),
            (r#""\ud83dx""#, r#""\ufffdx""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#"[1e131072, 1e-16384, 1e99999999999, 7]"#, "[null, null, null, 7]"),
            (r#""1e999999""#, r#""1e999999""#),
        ] {
            assert_eq!(comparable(text), expected);
        }
        let long = format!("[{}, 1]", "9".repeat(131_073));
        assert_eq!(comparable(&long), "[null, 1]");
    }

    proptest! {
        #[test]
        fn any_text_stays_readable(text in ".{0,40}", number: f64, wild in "\\PC{0,40}|[\\\\\"u0d8ef-]{0,40}") {
            let json = serde_json::json!([text.replace('\0', ""), number]).to_string();
            prop_assert_eq!(comparable(&json), json.as_str());
            comparable(&wild);
        }
    }
}
