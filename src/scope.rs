//! Scopes of many endpoints at once: which of them a row may lie in, without looking at each.
//!
//! Most scopes name a member that every row in them has, with a text or a whole number as its value: `{"location_id": "north"}`.
//! Such an endpoint is found by that value. PostgreSQL has the last word on every endpoint found (`@>`, and the filter), so
//! finding one too many costs time only; one too few must not happen, and so whatever is doubtful counts as found.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::comparable::comparable;

/// A value that equals another exactly when it is written the same: a text, or a whole number that fits 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mark {
    Text(String),
    Whole(i64),
}

impl Mark {
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text)),
            Value::Number(number) => number.as_i64().map(Self::Whole),
            _ => None,
        }
    }
}

/// Endpoints by a member of their scopes.
#[derive(Debug, Default)]
pub struct Scopes {
    by_member: HashMap<String, HashMap<Mark, Vec<i64>>>,
}

impl Scopes {
    /// Notes an endpoint with this scope. False: it cannot be found by a value, so any row may be for it.
    pub fn note(&mut self, endpoint: i64, scope: &str) -> bool {
        let members: Map<String, Value> = serde_json::from_str(scope).unwrap_or_default();
        let mark = members.into_iter().find_map(|(name, value)| Some((name, Mark::of(value)?)));
        let Some((name, mark)) = mark else { return false };
        self.by_member.entry(name).or_default().entry(mark).or_default().push(endpoint);
        true
    }

    /// Whether no endpoint was noted.
    pub fn is_empty(&self) -> bool {
        self.by_member.is_empty()
    }

    /// The noted endpoints whose scope this row, JSON text, may lie in.
    pub fn around(&self, row: &str) -> BTreeSet<i64> {
        if self.is_empty() || !row.trim_start().starts_with('{') {
            // An object is contained in nothing but an object.
            return BTreeSet::new();
        }
        let row = comparable(row);
        let members = serde_json::Deserializer::from_str(&row).deserialize_map(Members(self));
        let Ok(members) = members else { return self.all().collect() };
        let mut found = BTreeSet::new();
        for (name, value) in members {
            let Some(marks) = self.by_member.get(&name) else { continue };
            if value.is_number() && !value.is_i64() {
                // 42.0 and 4.2e1 equal 42.
                let whole = marks.iter().filter(|(mark, _)| matches!(mark, Mark::Whole(_)));
                found.extend(whole.flat_map(|(_, endpoints)| endpoints));
            } else if let Some(endpoints) = Mark::of(value).and_then(|mark| marks.get(&mark)) {
                found.extend(endpoints);
            }
        }
        found
    }

    fn all(&self) -> impl Iterator<Item = i64> {
        self.by_member.values().flat_map(HashMap::values).flatten().copied()
    }
}

/// Reads the members of an object that scopes name; of two with one name the last counts, as in jsonb.
struct Members<'a>(&'a Scopes);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = HashMap<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.0.by_member.contains_key(&name) {
                members.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn around(scopes: &[&str], row: &str) -> Vec<i64> {
        let mut noted = Scopes::default();
        for (id, scope) in (1..).zip(scopes) {
            assert!(noted.note(id, scope), "{scope}");
        }
        noted.around(row).into_iter().collect()
    }

    #[test]
    fn an_endpoint_is_found_by_the_value_that_its_scope_names() {
        let scopes = [r#"{"location_id": "north"}"#, r#"{"location_id": "south"}"#, r#"{"campaign": 42}"#];
        assert_eq!(around(&scopes, r#"{"id": 1, "location_id": "south"}"#), [2]);
        assert_eq!(around(&scopes, r#"{"campaign": 42, "location_id": "north"}"#), [1, 3]);
        for row in
            [r#"{"location_id": "west", "campaign": 43}"#, r#"{"location_id": null}"#, "{}", "42", "[]"]
        {
            assert!(around(&scopes, row).is_empty(), "{row}");
        }
    }

    #[test]
    fn texts_that_are_written_differently_are_the_same() {
        assert_eq!(around(&[r#"{"a": "é/"}"#], r#"{"\u0061":"\u00e9\/"}"#), [1]);
        assert_eq!(around(&["{\"a\": \"\u{fffd}\"}"], r#"{"a":"\u0000"}"#), [1]);
    }

    #[test]
    fn numbers_that_are_written_differently_are_found() {
        for number in ["42", "42.0", "4.2e1", "42000e-3"] {
            assert_eq!(around(&[r#"{"a": 42}"#], &format!(r#"{{"a":{number}}}"#)), [1], "{number}");
        }
    }

    #[test]
    fn the_last_of_two_members_with_one_name_counts() {
        assert_eq!(around(&[r#"{"a": "x"}"#, r#"{"a": "y"}"#], r#"{"a":"x","a":"y"}"#), [2]);
    }

    #[test]
    fn a_row_that_cannot_be_read_may_lie_in_every_scope() {
        assert_eq!(around(&[r#"{"a": "x"}"#, r#"{"b": 1}"#], r#"{"a":"y""#), [1, 2]);
    }

    #[test]
    fn a_scope_without_a_text_or_a_whole_number_cannot_be_looked_up() {
        for scope in ["{}", r#"{"a": 1.5}"#, r#"{"a": {"b": "c"}}"#, r#"{"a": ["b"], "c": true, "d": null}"#]
        {
            assert!(!Scopes::default().note(1, scope), "{scope}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[ab\"é]{0,2}".prop_map(Value::from),
            (-2i64..3).prop_map(Value::from),
            (-2i32..3).prop_map(|n| Value::from(f64::from(n) / 2.0)),
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
        ]
    }

    fn object() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::vec(("[abc]", value()), 0..4).prop_map(Map::from_iter)
    }

    fn equal(a: &Value, b: &Value) -> bool {
        a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64())
    }

    proptest! {
        #[test]
        fn no_endpoint_is_missed(scopes in proptest::collection::vec(object(), 0..8), row in object()) {
            let (mut noted, mut others) = (Scopes::default(), BTreeSet::new());
            for (id, scope) in (1..).zip(&scopes) {
                if !noted.note(id, &Value::Object(scope.clone()).to_string()) {
                    others.insert(id);
                }
            }
            let found = noted.around(&Value::Object(row.clone()).to_string());
            for (id, scope) in (1..).zip(&scopes) {
                let lies_in = scope.iter().all(|(name, want)| row.get(name).is_some_and(|has| equal(has, want)));
                prop_assert!(!lies_in || found.contains(&id) || others.contains(&id), "{scope:?} {row:?}");
            }
        }
    }
}
