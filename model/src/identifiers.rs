//! Which identifiers may be made here, and which are merely understood (spec: Appendices, Common
//! Identifier Format). Ruma's types accept what has ever been legal; new names obey the strict form.

use ruma::{IdParseError, OwnedRoomAliasId, OwnedUserId, RoomAliasId, ServerName, UserId};

/// The longest identifier, sigil and server name included, in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// Why a user ID or room alias cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing stands before the server name.
    #[error("the name is empty")]
    Empty,
    /// The whole identifier would be too long.
    #[error("the name makes an identifier of {bytes} bytes; at most {ID_BYTES_MAX} are allowed")]
    TooLong {
        /// How long the identifier would be.
        bytes: usize,
    },
    /// A character that must not be in such a name.
    #[error("the character {0:?} is not allowed in such a name")]
    Character(char),
    /// Names another server than this one.
    #[error("the name belongs to another server")]
    OtherServer,
    /// Not an identifier at all.
    #[error("not an identifier: {0}")]
    Malformed(#[from] IdParseError),
}

/// The ID of a user to be registered on `server` with this name. Upper-case letters become lower
/// case, as the specification has servers do; any other character outside the strict grammar is an
/// error.
///
/// # Errors
/// Where the name cannot be that of a new user.
pub fn new_user_id(localpart: &str, server: &ServerName) -> Result<OwnedUserId, InvalidName> {
    let localpart = localpart.to_ascii_lowercase();
    if localpart.is_empty() {
        return Err(InvalidName::Empty);
    }
    if let Some(bad) = localpart.chars().find(|&c| !is_strict_user_char(c)) {
        return Err(InvalidName::Character(bad));
    }
    let id = format!("@{localpart}:{server}");
    check_length(&id)?;
    Ok(UserId::parse(id)?)
}

/// The user that somebody who logs in as `name` means: a full user ID of `server`, or its localpart
/// alone. Accepts historical names, and is the same user in any case of letters where `name` has no
/// exact match; deciding that is the caller's.
///
/// # Errors
/// Where it is no user ID, or one of another server.
pub fn local_user_id(name: &str, server: &ServerName) -> Result<OwnedUserId, InvalidName> {
    let id = if name.starts_with('@') {
        UserId::parse(name)?
    } else {
        check_length(&format!("@{name}:{server}"))?;
        UserId::parse_with_server_name(name, server)?
    };
    if id.server_name() != server {
        return Err(InvalidName::OtherServer);
    }
    Ok(id)
}

/// Whether a user ID may be shown to clients outside of events: its localpart is not empty and
/// consists of visible ASCII characters (spec: Historical User IDs).
pub fn is_compliant(user: &UserId) -> bool {
    let localpart = user.localpart();
    !localpart.is_empty() && localpart.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

/// Checks an alias that is to be made on `server`: no whitespace or control characters, not too long,
/// and of this server.
///
/// # Errors
/// Where the alias cannot be made here.
pub fn new_alias(alias: &RoomAliasId, server: &ServerName) -> Result<(), InvalidName> {
    if alias.server_name() != server {
        return Err(InvalidName::OtherServer);
    }
    check_alias_name(alias.alias())?;
    check_length(alias.as_str())
}

/// The alias of `server` with this name, as `room_alias_name` in `/createRoom` gives it.
///
/// # Errors
/// Where no such alias can be made.
pub fn alias_from_name(name: &str, server: &ServerName) -> Result<OwnedRoomAliasId, InvalidName> {
    check_alias_name(name)?;
    let alias = format!("#{name}:{server}");
    check_length(&alias)?;
    Ok(RoomAliasId::parse(alias)?)
}

fn check_alias_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    match name.chars().find(|&c| c == ':' || c.is_whitespace() || c.is_control()) {
        Some(bad) => Err(InvalidName::Character(bad)),
        None => Ok(()),
    }
}

fn check_length(id: &str) -> Result<(), InvalidName> {
    match id.len() {
        bytes if bytes > ID_BYTES_MAX => Err(InvalidName::TooLong { bytes }),
        _ => Ok(()),
    }
}

/// What a new user's localpart may consist of.
fn is_strict_user_char(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '=' | '-' | '/' | '+')
}

#[cfg(test)]
mod tests {
    use ruma::{room_alias_id, server_name, user_id};

    use super::*;

    #[test]
    fn new_users_have_strict_names_in_lower_case() {
        let server = server_name!("one:8448");
        assert_eq!(new_user_id("Alice-1_=./+", server).unwrap(), "@alice-1_=./+:one:8448");
        for (name, bad) in [("a b", ' '), ("a:b", ':'), ("é", 'é'), ("a#", '#'), ("a\0", '\0')] {
            assert_eq!(new_user_id(name, server), Err(InvalidName::Character(bad)));
        }
        assert_eq!(new_user_id("", server), Err(InvalidName::Empty));
    }

    #[test]
    fn the_whole_identifier_counts_towards_the_limit() {
        let server = server_name!("one");
        assert!(new_user_id(&"a".repeat(250), server).is_ok());
        assert_eq!(new_user_id(&"a".repeat(251), server), Err(InvalidName::TooLong { bytes: 256 }));
        assert!(alias_from_name(&"a".repeat(250), server).is_ok());
        assert_eq!(
            alias_from_name(&"a".repeat(251), server),
            Err(InvalidName::TooLong { bytes: 256 })
        );
    }

    #[test]
    fn a_login_names_a_local_user_by_id_or_localpart_also_a_historical_one() {
        let server = server_name!("one");
        for (name, id) in
            [("alice", "@alice:one"), ("@alice:one", "@alice:one"), ("Al Ice", "@Al Ice:one")]
        {
            assert_eq!(local_user_id(name, server).unwrap(), id);
        }
        assert_eq!(local_user_id("@alice:two", server), Err(InvalidName::OtherServer));
        assert!(matches!(local_user_id("@alice", server), Err(InvalidName::Malformed(_))));
        assert!(matches!(
            local_user_id(&"a".repeat(300), server),
            Err(InvalidName::TooLong { .. })
        ));
    }

    #[test]
    fn only_visible_ascii_is_compliant() {
        assert!(is_compliant(user_id!("@Alice!:one")));
        for id in ["@a b:one", "@é:one", "@a\u{7f}:one"] {
            assert!(!is_compliant(&UserId::parse(id).unwrap()), "{id}");
        }
    }

    #[test]
    fn an_alias_is_made_on_its_own_server_and_without_blanks() {
        let server = server_name!("one");
        assert_eq!(new_alias(room_alias_id!("#räum:one"), server), Ok(()));
        assert_eq!(new_alias(room_alias_id!("#r:two"), server), Err(InvalidName::OtherServer));
        assert_eq!(new_alias(room_alias_id!("#a b:one"), server), Err(InvalidName::Character(' ')));
        assert_eq!(new_alias(room_alias_id!("#:one"), server), Err(InvalidName::Empty));
        assert_eq!(alias_from_name("a:b", server), Err(InvalidName::Character(':')));
    }
}
