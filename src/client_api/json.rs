//! What a JSON body must be before anything is parsed from it: one object, not too deep.
//!
//! `serde` skips parts that nobody asked for without looking at their depth, and reads an array
//! where a struct is wanted. Neither may reach a handler.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

/// A response whose body is JSON text already.
pub(super) fn raw_json(json: String) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], json).into_response()
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// JSON, but not an object.
    NotObject,
    /// Not UTF-8, which the parser overlooks where nobody asks for the text.
    NotUtf8,
    /// More arrays and objects within each other than allowed.
    TooDeep,
}

/// Checks that `body` starts an object and opens at most `depth_max` arrays and objects within each
/// other. The rest of its syntax is left to the parser.
///
/// # Errors
/// The first fault met.
pub(super) fn check(body: &[u8], depth_max: usize) -> Result<(), JsonFault> {
    if matches!(body.trim_ascii_start().first(), Some(first) if *first != b'{') {
        return Err(JsonFault::NotObject);
    }
    if std::str::from_utf8(body).is_err() {
        return Err(JsonFault::NotUtf8);
    }
    let (mut depth, mut in_string) = (0_usize, false);
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => {
                bytes.next();
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > depth_max {
                    return Err(JsonFault::TooDeep);
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_utf_8_is_refused_also_where_nobody_asks_for_it() {
        assert_eq!(check(b"{\"ignored\":\"a\x81b\"}", 2), Err(JsonFault::NotUtf8));
    }

    #[test]
    fn brackets_in_strings_and_escaped_quotes_do_not_count() {
        assert_eq!(check(br#"{"a":"[[[\"[[[","b":[1]}"#, 2), Ok(()));
    }

    #[test]
    fn depth_counts_what_is_open_at_once() {
        assert_eq!(check(br#"{"a":[[]],"b":[[]]}"#, 3), Ok(()));
        assert_eq!(check(br#"{"a":[[[]]]}"#, 3), Err(JsonFault::TooDeep));
    }

    #[test]
    fn only_an_object_is_a_body() {
        assert_eq!(check(b" \n[]", 9), Err(JsonFault::NotObject));
        assert_eq!(check(b"null", 9), Err(JsonFault::NotObject));
        assert_eq!(check(b"  {}", 9), Ok(()));
    }
}
