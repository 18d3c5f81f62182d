//! The position of a connection, as its client carries it.

use std::{fmt, str::FromStr};

use millrace_model::SyncToken;

/// Which response of the connection a client has, and what was seen by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pos {
    /// Number of the response, of all that this run of the process gave.
    pub(super) number: u64,
    /// What was seen.
    pub(super) token: SyncToken,
}

/// A position that this server did not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pos is not a position of this server")]
pub struct InvalidPos;

impl Pos {
    /// What its client has seen when it has this position.
    #[must_use]
    pub const fn token(&self) -> &SyncToken {
        &self.token
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.token)
    }
}

impl FromStr for Pos {
    type Err = InvalidPos;

    fn from_str(text: &str) -> Result<Self, InvalidPos> {
        let (number, token) = text.split_once('.').ok_or(InvalidPos)?;
        let number = number.parse().map_err(|_| InvalidPos)?;
        let token = token.parse().map_err(|_| InvalidPos)?;
        Ok(Self { number, token })
    }
}
