//! The grammar of names that can be registered.

use ruma::{OwnedUserId, ServerName, UserId};

/// A user ID has at most so many bytes.
const USER_ID_BYTES_MAX: usize = 255;

/// Why a name cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    /// It is empty.
    #[error("a username must not be empty")]
    Empty,
    /// It has a character that no new user ID may have.
    #[error("a username consists of a-z, 0-9 and . _ = - / +, not {0:?}")]
    Character(char),
    /// The whole user ID would be too long.
    #[error("the user ID would be longer than {USER_ID_BYTES_MAX} bytes")]
    TooLong,
}

/// The user ID of a new account of `server`, its capitals turned small.
///
/// Specification: appendices, "User Identifiers".
///
/// # Errors
/// Where `name` is outside of the grammar.
pub fn parse_username(name: &str, server: &ServerName) -> Result<OwnedUserId, InvalidUsername> {
    if name.is_empty() {
        return Err(InvalidUsername::Empty);
    }
    let name = name.to_ascii_lowercase();
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '=' | '-' | '/' | '+');
    if let Some(other) = name.chars().find(|c| !allowed(*c)) {
        return Err(InvalidUsername::Character(other));
    }
    let user = format!("@{name}:{server}");
    if user.len() > USER_ID_BYTES_MAX {
        return Err(InvalidUsername::TooLong);
    }
    UserId::parse(user).map_err(|_| InvalidUsername::TooLong)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn capitals_become_small() {
        let user = parse_username("User-UPPER", server_name!("hs1")).unwrap();
        assert_eq!(user, "@user-upper:hs1");
    }

    #[test]
    fn every_character_of_the_grammar_is_accepted_and_no_other_ascii_one() {
        for c in (0..128_u8).map(char::from) {
            let allowed = c.is_ascii_alphanumeric() || "._=-/+".contains(c);
            let parsed = parse_username(&format!("a{c}"), server_name!("hs1"));
            assert_eq!(parsed.is_ok(), allowed, "{c:?}");
        }
        assert_eq!(parse_username("é", server_name!("hs1")), Err(InvalidUsername::Character('é')));
    }

    #[test]
    fn the_whole_user_id_has_at_most_255_bytes() {
        let name = |len| "a".repeat(len);
        assert!(parse_username(&name(250), server_name!("hs1")).is_ok());
        assert_eq!(parse_username(&name(251), server_name!("hs1")), Err(InvalidUsername::TooLong));
        assert_eq!(parse_username("", server_name!("hs1")), Err(InvalidUsername::Empty));
    }
}
