//! Picking fields out of events, as a filter's `event_fields` asks (spec: Client-Server API,
//! Filtering; Appendices, Dot-separated property paths).

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

use crate::json::DEPTH_MAX;

/// The fields that are wanted of an event, as a tree of property names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFields {
    /// Whether all below is wanted.
    whole: bool,
    properties: BTreeMap<String, EventFields>,
}

impl EventFields {
    /// Compiles paths such as `content.body`. One that is longer than events are deep names nothing.
    pub fn new(paths: &[String]) -> Self {
        let mut fields = Self::default();
        for path in paths {
            let names = split(path);
            if names.len() > DEPTH_MAX {
                continue;
            }
            let mut node = &mut fields;
            for name in names {
                node = node.properties.entry(name).or_default();
            }
            node.whole = true;
        }
        fields
    }

    /// What is wanted of `json`, its values untouched. What is no object has no properties.
    pub fn pick(&self, json: &RawValue) -> Box<RawValue> {
        if self.whole {
            return json.to_owned();
        }
        let object: BTreeMap<String, &RawValue> =
            serde_json::from_str(json.get()).unwrap_or_default();
        let picked: BTreeMap<&str, Box<RawValue>> = self
            .properties
            .iter()
            .filter_map(|(name, fields)| Some((name, fields, *object.get(name)?)))
            // A path that leads into an object by a value that is none leads nowhere.
            .filter(|(_, fields, value)| fields.whole || value.get().starts_with('{'))
            .map(|(name, fields, value)| (name.as_str(), fields.pick(value)))
            .collect();
        to_raw_value(&picked).expect("a map of texts to JSON has a JSON form")
    }
}

/// The property names of a path: dots separate, `\.` and `\\` stand for themselves.
fn split(path: &str) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), String::new());
    let mut letters = path.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '.' => names.push(std::mem::take(&mut name)),
            '\\' => name.push(letters.next_if(|next| matches!(next, '.' | '\\')).unwrap_or('\\')),
            _ => name.push(letter),
        }
    }
    names.push(name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(paths: &[&str], json: &str) -> String {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let json = RawValue::from_string(json.to_owned()).unwrap();
        EventFields::new(&paths).pick(&json).get().to_owned()
    }

    #[test]
    fn paths_pick_properties_and_leave_their_values_as_they_are() {
        let event = r#"{"type":"t","content":{"body":"x","n":1.50,"o":{"a":1}},"sender":"@a"}"#;
        for (paths, picked) in [
            (&[][..], "{}"),
            (&["type", "content.body"], r#"{"content":{"body":"x"},"type":"t"}"#),
            (&["content.n"], r#"{"content":{"n":1.50}}"#),
            (&["content.body", "content"], r#"{"content":{"body":"x","n":1.50,"o":{"a":1}}}"#),
            (&["content.missing"], r#"{"content":{}}"#),
            (&["type.deeper", "missing.too"], "{}"),
        ] {
            assert_eq!(pick(paths, event), picked, "{paths:?}");
        }
    }

    #[test]
    fn a_backslash_takes_a_dot_or_a_backslash_for_itself_and_nothing_else() {
        let event = r#"{"m.a":1,"b\\c":2,"d\\x":3,"e":{"f":4}}"#;
        for (path, picked) in [
            (r"m\.a", r#"{"m.a":1}"#),
            (r"b\\c", r#"{"b\\c":2}"#),
            (r"d\x", r#"{"d\\x":3}"#),
            ("e.f", r#"{"e":{"f":4}}"#),
            ("m.a", "{}"),
        ] {
            assert_eq!(pick(&[path], event), picked, "{path}");
        }
    }

    #[test]
    fn a_path_without_end_is_no_danger() {
        let path = "a.".repeat(100_000);
        assert_eq!(pick(&[&path, "b"], r#"{"a":{},"b":1}"#), r#"{"b":1}"#);
    }
}
