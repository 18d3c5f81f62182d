//! JSON written as text, where most of what goes in is JSON already: what is rendered once is
//! neither parsed nor copied again.

use millrace_model::client_event::push_json_str;
use serde::Serialize;

/// An object in the making, at the end of a text. It has to be ended.
#[must_use]
pub struct Object<'o> {
    out: &'o mut String,
    /// Where it began, its name included.
    start: usize,
}

/// An array in the making, at the end of a text. It has to be ended.
#[must_use]
pub struct Array<'o> {
    out: &'o mut String,
}

impl<'o> Object<'o> {
    /// Begins an object.
    pub fn begin(out: &'o mut String) -> Self {
        let start = out.len();
        out.push('{');
        Self { out, start }
    }

    /// Begins a field: what is to be its value is appended to the text returned.
    pub fn field(&mut self, name: &str) -> &mut String {
        if !self.is_empty() {
            self.out.push(',');
        }
        push_json_str(self.out, name);
        self.out.push(':');
        self.out
    }

    /// Adds a field.
    pub fn put(&mut self, name: &str, value: &impl Serialize) {
        let value = serde_json::to_string(value).expect("our own types have a JSON form");
        self.field(name).push_str(&value);
    }

    /// Adds a field with a string.
    pub fn put_str(&mut self, name: &str, value: &str) {
        push_json_str(self.field(name), value);
    }

    /// Adds a field with an object that has one field, `events`, with these JSON texts; nothing
    /// where there are none.
    pub fn put_events(&mut self, name: &str, events: &[impl AsRef<str>]) {
        if events.is_empty() {
            return;
        }
        let mut object = Object::begin(self.field(name));
        push_array(object.field("events"), events);
        object.end();
    }

    /// Begins an object as a field, for [`Object::end_unless_empty`].
    pub fn object(&mut self, name: &str) -> Object<'_> {
        let start = self.out.len();
        self.field(name).push('{');
        Object { out: self.out, start }
    }

    /// Whether it has no fields yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // No value ends so.
        self.out.ends_with('{')
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push('}');
    }

    /// Ends the object; where it has no fields, the text is as before it began.
    pub fn end_unless_empty(self) {
        if self.is_empty() {
            self.out.truncate(self.start);
        } else {
            self.end();
        }
    }
}

impl<'o> Array<'o> {
    /// Begins an array.
    pub fn begin(out: &'o mut String) -> Self {
        out.push('[');
        Self { out }
    }

    /// Begins an item: what it is to be is appended to the text returned.
    pub fn item(&mut self) -> &mut String {
        // No value ends so.
        if !self.out.ends_with('[') {
            self.out.push(',');
        }
        self.out
    }

    /// Ends the array.
    pub fn end(self) {
        self.out.push(']');
    }
}

/// Appends an array of these JSON texts.
pub fn push_array(out: &mut String, items: &[impl AsRef<str>]) {
    let mut array = Array::begin(out);
    for item in items {
        array.item().push_str(item.as_ref());
    }
    array.end();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_written_is_the_json_that_was_meant() {
        let mut text = String::new();
        let mut object = Object::begin(&mut text);
        object.put_str("a \"quoted\" name", "{");
        object.put("number", &1);
        let mut inner = object.object("inner");
        let mut array = Array::begin(inner.field("array"));
        array.item().push_str("[]");
        array.item().push_str("{}");
        array.item().push_str("\"[\"");
        array.end();
        Object::begin(inner.field("empty")).end();
        inner.end_unless_empty();
        object.put_events("some", &["{\"type\":\"m.a\"}"]);
        object.end();
        let meant = json!({
            "a \"quoted\" name": "{",
            "number": 1,
            "inner": {"array": [[], {}, "["], "empty": {}},
            "some": {"events": [{"type": "m.a"}]},
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), meant);
    }

    #[test]
    fn what_stays_empty_leaves_no_trace() {
        let mut text = String::new();
        let mut object = Object::begin(&mut text);
        let mut outer = object.object("outer");
        outer.object("inner").end_unless_empty();
        outer.put_events("events", &[] as &[&str]);
        assert!(outer.is_empty());
        outer.end_unless_empty();
        object.put("last", &true);
        object.object("after").end_unless_empty();
        object.end();
        assert_eq!(text, "{\"last\":true}");
    }
}
