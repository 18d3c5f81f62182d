//! Where a search goes on. Its text form, `next_batch`, is opaque to clients.

use std::fmt;

use ruma::{OwnedRoomId, OwnedUserId};

use crate::index::Cursor;

/// Pages by rank end after so many matches: each costs as much as all before it.
pub(super) const SKIP_MAX: usize = 20_000;

/// Only what the searcher has in one room, or what one user sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A room's.
    Room(OwnedRoomId),
    /// A sender's.
    Sender(OwnedUserId),
}

/// Where a search goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextBatch {
    /// The place among what matches.
    pub cursor: Cursor,
    /// How many results there are in all, as the first page estimated.
    pub count: usize,
    /// The group that it goes on with, if not with all.
    pub group: Option<Group>,
}

/// A `next_batch` that this server has not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("next_batch is not a token of this server, or one of another kind of request")]
pub struct InvalidNextBatch;

impl fmt::Display for NextBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cursor {
            Cursor::Start => write!(f, "s1_k0")?,
            Cursor::Skip(skip) => write!(f, "s1_k{skip}")?,
            Cursor::Before(order) => write!(f, "s1_b{order}")?,
        }
        write!(f, "_{}", self.count)?;
        match &self.group {
            None => Ok(()),
            Some(Group::Room(room)) => write!(f, "_r{room}"),
            Some(Group::Sender(sender)) => write!(f, "_u{sender}"),
        }
    }
}

impl std::str::FromStr for NextBatch {
    type Err = InvalidNextBatch;

    fn from_str(text: &str) -> Result<Self, InvalidNextBatch> {
        let mut parts = text.splitn(4, '_');
        let mut next = || parts.next().ok_or(InvalidNextBatch);
        if next()? != "s1" {
            return Err(InvalidNextBatch);
        }
        let cursor = next()?;
        let cursor = match cursor.split_at_checked(1) {
            Some(("k", skip)) => {
                let skip = skip.parse().ok().filter(|skip| *skip <= SKIP_MAX);
                Cursor::Skip(skip.ok_or(InvalidNextBatch)?)
            }
            Some(("b", order)) => Cursor::Before(order.parse().map_err(|_| InvalidNextBatch)?),
            _ => return Err(InvalidNextBatch),
        };
        let count = next()?.parse().map_err(|_| InvalidNextBatch)?;
        let group = match parts.next().map(|group| group.split_at_checked(1)) {
            None => None,
            Some(Some(("r", room))) => {
                Some(Group::Room(room.try_into().map_err(|_| InvalidNextBatch)?))
            }
            Some(Some(("u", user))) => {
                Some(Group::Sender(user.try_into().map_err(|_| InvalidNextBatch)?))
            }
            Some(_) => return Err(InvalidNextBatch),
        };
        Ok(Self { cursor, count, group })
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        for group in [
            None,
            Some(Group::Room(owned_room_id!("!a_b:example.org"))),
            Some(Group::Sender(owned_user_id!("@a_b:example.org"))),
        ] {
            for cursor in [Cursor::Skip(20), Cursor::Before(u64::MAX)] {
                let token = NextBatch { cursor, count: 7, group: group.clone() };
                assert_eq!(token.to_string().parse(), Ok(token));
            }
        }
    }

    #[test]
    fn others_are_refused() {
        for text in
            ["", "s1", "s2_k1_1", "s1_x1_1", "s1_k_1", "s1_k1", "s1_k1_1_x", "s1_k1_1_r@a:b"]
        {
            assert_eq!(text.parse::<NextBatch>(), Err(InvalidNextBatch), "{text}");
        }
    }
}
