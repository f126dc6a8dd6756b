//! Writes a [`Message`] as JSON, as a form or as XML. Numbers keep the text that PostgreSQL gave them in all three.

use url::form_urlencoded;

use crate::format::{Content, Message, Value};
use crate::{json, xml};

/// JSON: an object of the members; the event's own JSON texts are copied as they are.
pub fn as_json(message: &Message<'_>) -> String {
    let members = match &message.content {
        Content::Whole(text) => return text.clone().into_owned(),
        Content::Members(members) => members,
    };
    let mut out = Vec::new();
    for (name, value) in members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        json::push_string(&mut out, name.as_bytes());
        out.push(b':');
        match value {
            Value::Text(text) => json::push_string(&mut out, text.as_bytes()),
            Value::Json(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
    out.push(b'}');
    // Names and texts are UTF-8, and escaping cuts no character.
    String::from_utf8(out).unwrap_or_default()
}

/// `application/x-www-form-urlencoded` (<https://url.spec.whatwg.org/#application/x-www-form-urlencoded>): one field for each member.
/// Objects and arrays are JSON text, null is empty. Of a row that is no object there is one field, `data`.
pub fn as_form(message: &Message<'_>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    match &message.content {
        Content::Members(members) => {
            for (name, value) in members {
                match value {
                    Value::Text(text) => form.append_pair(name, text),
                    Value::Json(text) => form.append_pair(name, &json::plain(text)),
                };
            }
        }
        Content::Whole(text) => match json::members(text) {
            Some(members) => {
                for (name, value) in members {
                    form.append_pair(&name, &json::plain(value));
                }
            }
            None => {
                form.append_pair("data", &json::plain(text));
            }
        },
    }
    form.finish()
}

/// An XML 1.0 document: see [`xml`].
///
/// # Errors
/// The writer refused, which it has no reason for.
pub fn as_xml(message: &Message<'_>) -> std::io::Result<Vec<u8>> {
    match &message.content {
        Content::Whole(text) => xml::document(message.root, |xml| xml.json_inside(text)),
        Content::Members(members) => xml::document(message.root, |xml| {
            for (name, value) in members {
                match value {
                    Value::Text(text) => xml.text(name, text)?,
                    Value::Json(text) => xml.json(name, text)?,
                }
            }
            Ok(())
        }),
    }
}
