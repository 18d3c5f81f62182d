//! Checks on JSON before it is parsed, and its canonical form (spec: Appendices, Canonical JSON).

use ruma::{CanonicalJsonObject, CanonicalJsonValue, canonical_json::CanonicalJsonError};

/// How deep JSON may be nested where nothing else says. Parsers here refuse 128 levels of their own
/// accord; this leaves room for what events are wrapped in.
pub const DEPTH_MAX: usize = 100;

/// JSON that is nested too deeply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the JSON is nested more than {0} levels deep")]
pub struct TooDeep(pub usize);

/// Refuses JSON that is nested more than `depth_max` levels deep, without recursion and in one pass.
/// Whether it is JSON at all is left to the parser.
///
/// # Errors
/// Where an object or array opens below the limit.
pub fn check_depth(json: &[u8], depth_max: usize) -> Result<(), TooDeep> {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return Err(TooDeep(depth_max));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// Why JSON has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum NotCanonical {
    /// Nested too deeply.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// Not JSON.
    #[error("{0}")]
    Invalid(#[from] serde_json::Error),
    /// Another value than an object.
    #[error("expected an object")]
    NoObject,
    /// It holds a number that is not an integer within ±(2^53 − 1).
    #[error("numbers in events must be integers within ±(2^53 − 1), in every room version: {0}")]
    Number(#[from] CanonicalJsonError),
}

/// Parses an object of canonical JSON: numbers must be integers within ±(2^53 − 1), as room versions
/// since 6 demand. Millrace knows no other events in older ones either.
///
/// # Errors
/// Where the text has no canonical form.
pub fn canonical_object(json: &str) -> Result<CanonicalJsonObject, NotCanonical> {
    check_depth(json.as_bytes(), DEPTH_MAX)?;
    match CanonicalJsonValue::try_from(serde_json::from_str::<serde_json::Value>(json)?)? {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(NotCanonical::NoObject),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
    }

    fn depth_of(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth_of).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            r#"[\[{"\\a]{0,4}"#.prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 30, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(r#"[\[{"\\a]{0,3}"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_depth_found_is_the_depth_there_is(value in any_json()) {
            let text = value.to_string();
            let depth = depth_of(&value);
            prop_assert_eq!(check_depth(text.as_bytes(), depth), Ok(()));
            if depth > 0 {
                prop_assert_eq!(check_depth(text.as_bytes(), depth - 1), Err(TooDeep(depth - 1)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = check_depth(&bytes, 3);
        }
    }

    #[test]
    fn a_million_brackets_are_refused_without_recursion() {
        assert_eq!(check_depth(nested(1_000_000).as_bytes(), DEPTH_MAX), Err(TooDeep(DEPTH_MAX)));
        assert_eq!(check_depth(nested(DEPTH_MAX).as_bytes(), DEPTH_MAX), Ok(()));
    }

    #[test]
    fn only_integers_within_53_bits_are_canonical() {
        for (text, canonical) in [
            (r#"{"b":1,"a":[true,null,"x"]}"#, true),
            (r#"{"a":9007199254740991}"#, true),
            (r#"{"a":-9007199254740991}"#, true),
            (r#"{"a":9007199254740992}"#, false),
            (r#"{"a":1.5}"#, false),
            (r#"{"a":1.0}"#, false),
            (r#"{"a":1e3}"#, false),
            (r#"{"a":-0}"#, false),
            ("[]", false),
            ("{", false),
        ] {
            assert_eq!(canonical_object(text).is_ok(), canonical, "{text}");
        }
        for number in ["1.5", "9007199254740992"] {
            let refused = canonical_object(&format!(r#"{{"a":[{number}]}}"#));
            assert!(matches!(refused, Err(NotCanonical::Number(_))), "{refused:?}");
        }
        let sorted = serde_json::to_string(&canonical_object(r#"{"b":1,"a":2}"#).unwrap());
        assert_eq!(sorted.unwrap(), r#"{"a":2,"b":1}"#);
    }
}
