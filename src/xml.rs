//! JSON as XML 1.0: one element for each member, arrays as repeated `item`, null as an empty element with `nil="true"`, and
//! names that are no names of elements as `<field name="…">`.
//!
//! XML has no way to write U+0000 and most other control characters; they become U+FFFD.

use std::borrow::Cow;
use std::io;

use quick_xml::Writer;
use quick_xml::escape::partial_escape;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use crate::json;

/// Deeper than this, objects and arrays are written as JSON text: no receiver's parser and no stack of ours shall be tried.
const MAX_DEPTH: usize = 64;

/// Letters beyond ASCII on which the fourth and the fifth edition of XML 1.0 agree: parsers follow either.
const LETTERS: [(char, char); 17] = [
    ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{131}'),
    ('\u{134}', '\u{13e}'),
    ('\u{141}', '\u{148}'),
    ('\u{14a}', '\u{17e}'),
    ('\u{388}', '\u{38a}'),
    ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3ce}'),
    ('\u{401}', '\u{40c}'),
    ('\u{40e}', '\u{44f}'),
    ('\u{5d0}', '\u{5ea}'),
    ('\u{621}', '\u{63a}'),
    ('\u{3041}', '\u{3094}'),
    ('\u{30a1}', '\u{30fa}'),
    ('\u{4e00}', '\u{9fa5}'),
    ('\u{ac00}', '\u{d7a3}'),
];

/// A document under construction.
pub struct Document {
    writer: Writer<Vec<u8>>,
    depth: usize,
}

/// A whole document: the root's name, and what writes its inside.
///
/// # Errors
/// The writer refused.
pub fn document(root: &str, inside: impl FnOnce(&mut Document) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut document = Document { writer: Writer::new(Vec::new()), depth: 0 };
    document.writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    document.element(root, inside)?;
    Ok(document.writer.into_inner())
}

impl Document {
    fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let start = start(name);
        let end = BytesEnd::new(start.name().0.to_owned());
        self.writer.write_event(Event::Start(start))?;
        self.depth += 1;
        inside(self)?;
        self.depth -= 1;
        self.writer.write_event(Event::End(end))
    }

    /// An element with this text.
    ///
    /// # Errors
    /// The writer refused.
    pub fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.element(name, |xml| xml.characters(text))
    }

    fn characters(&mut self, text: &str) -> io::Result<()> {
        // Quotes stay as they are: JSON text inside an element would be twice as long.
        self.writer.write_event(Event::Text(BytesText::from_escaped(partial_escape(allowed(text)))))
    }

    /// An element of what a JSON text says.
    ///
    /// # Errors
    /// The writer refused.
    pub fn json(&mut self, name: &str, text: &str) -> io::Result<()> {
        if text.trim_ascii() == "null" {
            let mut empty = start(name);
            empty.push_attribute(("nil", "true"));
            return self.writer.write_event(Event::Empty(empty));
        }
        self.element(name, |xml| xml.json_inside(text))
    }

    /// What a JSON text says, for the inside of an element.
    ///
    /// # Errors
    /// The writer refused.
    pub fn json_inside(&mut self, text: &str) -> io::Result<()> {
        if self.depth < MAX_DEPTH {
            if let Some(members) = json::members(text) {
                return members.into_iter().try_for_each(|(name, value)| self.json(&name, value));
            }
            if let Some(items) = json::items(text) {
                return items.into_iter().try_for_each(|item| self.json("item", item));
            }
        }
        self.characters(&json::plain(text))
    }
}

fn start(name: &str) -> BytesStart<'_> {
    if is_name(name) {
        return BytesStart::new(name);
    }
    let mut field = BytesStart::new("field");
    field.push_attribute(("name", allowed(name)));
    field
}

/// Whether an element may bear the name. No colon, which would be a namespace; no `xml` at its start, which is reserved.
fn is_name(name: &str) -> bool {
    let letter = |c: char| {
        c.is_ascii_alphabetic()
            || c == '_'
            || LETTERS.iter().any(|(first, last)| (*first..=*last).contains(&c))
    };
    let reserved = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("xml"));
    name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-' || c == '.')
        && !reserved
}

/// The text with U+FFFD in place of what XML 1.0 has no character for (its production 2, `Char`).
fn allowed(text: &str) -> Cow<'_, str> {
    let refused = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    if text.contains(refused) { Cow::Owned(text.replace(refused, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_xml::Reader;

    use super::*;

    fn xml_of(json: &str) -> String {
        let bytes = document("event", |xml| xml.json_inside(json)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        text.strip_prefix(r#"<?xml version="1.0" encoding="UTF-8"?>"#).unwrap().to_owned()
    }

    #[test]
    fn members_are_elements_and_items_repeat() {
        assert_eq!(
            xml_of(
                r#"{"id": 1, "tags": ["a", [true]], "who": {"name": "Ann & <Bob>"}, "none": null, "empty": {}}"#
            ),
            "<event><id>1</id><tags><item>a</item><item><item>true</item></item></tags>\
             <who><name>Ann &amp; &lt;Bob&gt;</name></who><none nil=\"true\"/><empty></empty></event>"
        );
    }

    #[test]
    fn numbers_keep_their_text() {
        let numbers = "[1.50, 1e400, 12345678901234567890.000, -0]";
        assert_eq!(
            xml_of(numbers),
            "<event><item>1.50</item><item>1e400</item><item>12345678901234567890.000</item><item>-0</item></event>"
        );
    }

    #[test]
    fn a_name_that_no_element_can_have_is_an_attribute() {
        assert_eq!(
            xml_of(r#"{"a b": 1, "1st": 2, "xmlns": 3, "a:b": 4, "": 5, "größe": 6, "\"<\u0000\n": 7}"#),
            "<event><field name=\"a b\">1</field><field name=\"1st\">2</field><field name=\"xmlns\">3</field>\
             <field name=\"a:b\">4</field><field name=\"\">5</field><größe>6</größe>\
             <field name=\"&quot;&lt;\u{fffd}&#10;\">7</field></event>"
        );
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(
            xml_of(r#"{"a": "x\u0000\u0008\ufffe\r\n\t\u0085"}"#),
            "<event><a>x\u{fffd}\u{fffd}\u{fffd}&#13;\n\t\u{85}</a></event>"
        );
    }

    #[test]
    fn half_a_character_stays_as_json_writes_it() {
        assert_eq!(xml_of(r#"["\ud800"]"#), r#"<event><item>"\ud800"</item></event>"#);
    }

    #[test]
    fn endless_nesting_ends_as_json_text() {
        let depth = 100_000;
        let text = xml_of(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
        assert_eq!(text.matches("<item>").count(), MAX_DEPTH - 1);
        assert!(text.contains("[[[1]]]"));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_from_a_parser(name in "\\PC{0,8}", text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{0,30}") {
            let json = serde_json::json!({ name.clone(): text }).to_string();
            let xml = xml_of(&json);
            let mut reader = Reader::from_str(&xml);
            let (mut found, mut names) = (String::new(), Vec::new());
            loop {
                match reader.read_event().unwrap() {
                    Event::Start(start) => {
                        let named = start.try_get_attribute("name").unwrap();
                        names.push(match named {
                            Some(attribute) => attribute.normalized_value(quick_xml::XmlVersion::Explicit1_0).unwrap().into_owned(),
                            None => start.name().0.to_owned(),
                        });
                    }
                    Event::Text(text) => found.push_str(&text),
                    Event::GeneralRef(reference) => {
                        let entity = format!("&{};", &*reference);
                        found.push_str(&quick_xml::escape::unescape(&entity).unwrap());
                    }
                    Event::Eof => break,
                    _ => {}
                }
            }
            prop_assert_eq!(&names[1], &name);
            prop_assert_eq!(found, text);
        }
    }
}
