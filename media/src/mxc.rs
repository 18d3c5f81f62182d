//! Names of media: `mxc://server/media ID` (spec: Client-Server API, Matrix Content URIs).

use std::fmt;

use ruma::{MxcUri, OwnedServerName, ServerName};

/// The longest media ID.
const ID_BYTES_MAX: usize = 255;

/// A server and a media ID that names nothing but a medium: letters, digits, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mxc {
    server: OwnedServerName,
    id: String,
}

/// A media ID that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a media ID consists of 1 to {ID_BYTES_MAX} letters, digits, _ and -")]
pub struct InvalidMediaId;

impl Mxc {
    /// The medium of `server` with this ID.
    ///
    /// # Errors
    /// Where `id` has a character that it cannot have, so that it is never taken for a path.
    pub fn new(server: OwnedServerName, id: String) -> Result<Self, InvalidMediaId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(allowed) {
            return Err(InvalidMediaId);
        }
        Ok(Self { server, id })
    }

    /// What an `mxc://` URI names; none where it is no such URI.
    #[must_use]
    pub fn of_uri(uri: &MxcUri) -> Option<Self> {
        let (server, id) = uri.parts().ok()?;
        Self::new(server.to_owned(), id.to_owned()).ok()
    }

    /// Reads what [`Mxc::partition`] wrote.
    #[must_use]
    pub fn of_partition(partition: &str) -> Option<Self> {
        let (server, id) = partition.split_once('/')?;
        Self::new(server.try_into().ok()?, id.to_owned()).ok()
    }

    /// The server that it comes from.
    #[must_use]
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The media ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The partition of its rows.
    pub(crate) fn partition(&self) -> String {
        format!("{}/{}", self.server, self.id)
    }
}

impl fmt::Display for Mxc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mxc://{}/{}", self.server, self.id)
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;

    use super::*;

    #[test]
    fn an_id_is_never_a_path() {
        for wrong in ["", ".", "..", "../x", "a/b", "a\\b", "a%2fb", "a.b", "é", "a b", "a\0"] {
            let made = Mxc::new(owned_server_name!("one.example"), wrong.to_owned());
            assert_eq!(made, Err(InvalidMediaId), "{wrong:?}");
        }
        let long = "x".repeat(256);
        assert_eq!(Mxc::new(owned_server_name!("one.example"), long), Err(InvalidMediaId));
        let mxc = Mxc::new(owned_server_name!("one.example:8448"), "aZ9_-".to_owned()).unwrap();
        assert_eq!(mxc.to_string(), "mxc://one.example:8448/aZ9_-");
        assert_eq!(Mxc::of_partition(&mxc.partition()), Some(mxc));
    }
}
