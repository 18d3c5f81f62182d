//! The log of what other servers are to be told, which whoever sends to them follows.
//!
//! It says where something is new, not what: events are in the room's outbox, receipts in the room,
//! messages to devices in the queue of their server. Each commit that changes one of these notes it
//! here, so that a sender need not look at all rooms and all servers.

use millrace_store::{
    Snapshot, Tx, View,
    tables::{OUTBOX_CHANGED, OUTBOX_NEWS},
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};

/// What is new to other servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum News {
    /// The room's outbox has a new row.
    Room(OwnedRoomId),
    /// A server got its first joined user in a room, or lost its last.
    Server {
        /// The room.
        room: OwnedRoomId,
        /// The server.
        server: OwnedServerName,
    },
    /// A user of ours has read on.
    Receipt {
        /// The room.
        room: OwnedRoomId,
        /// The user.
        user: OwnedUserId,
        /// The thread, as in the key of the receipt.
        thread: String,
    },
    /// A message of a user of another server has come to a device of a user of ours.
    Delivery {
        /// The room.
        room: OwnedRoomId,
        /// Who sent it.
        sender: OwnedUserId,
        /// To whose device.
        recipient: OwnedUserId,
    },
    /// Messages to devices wait for a server.
    ToDevice(OwnedServerName),
    /// A user of ours came into a room whose other servers may not know their devices.
    Joined {
        /// The room.
        room: OwnedRoomId,
        /// The user.
        user: OwnedUserId,
        /// Whether the room was known in part only: who is in it is not sure then.
        partial: bool,
    },
    /// A server may not know of the newest changes of the devices of a user of ours.
    Missed {
        /// The server.
        server: OwnedServerName,
        /// The user.
        user: OwnedUserId,
    },
}

/// A row of the log.
type Key = (u8, String, String, String);

/// Marks, in a row of the log, that a room was known in part.
const PARTIAL: &str = "partial";

impl News {
    fn key(&self) -> Key {
        let none = String::new;
        match self {
            Self::Room(room) => (0, room.to_string(), none(), none()),
            Self::Server { room, server } => (1, room.to_string(), server.to_string(), none()),
            Self::Receipt { room, user, thread } => {
                (2, room.to_string(), user.to_string(), thread.clone())
            }
            Self::ToDevice(server) => (3, server.to_string(), none(), none()),
            Self::Joined { room, user, partial } => {
                let part = if *partial { PARTIAL.to_owned() } else { none() };
                (4, room.to_string(), user.to_string(), part)
            }
            Self::Missed { server, user } => (5, server.to_string(), user.to_string(), none()),
            Self::Delivery { room, sender, recipient } => {
                (6, room.to_string(), sender.to_string(), recipient.to_string())
            }
        }
    }

    /// `None` where it is of a kind that a newer version of this program writes.
    fn from_key((kind, what, whom, part): Key) -> Option<Self> {
        Some(match kind {
            0 => Self::Room(what.try_into().ok()?),
            1 => Self::Server { room: what.try_into().ok()?, server: whom.try_into().ok()? },
            2 => {
                let (room, user) = (what.try_into().ok()?, whom.try_into().ok()?);
                Self::Receipt { room, user, thread: part }
            }
            3 => Self::ToDevice(what.try_into().ok()?),
            4 => {
                let (room, user) = (what.try_into().ok()?, whom.try_into().ok()?);
                Self::Joined { room, user, partial: part == PARTIAL }
            }
            5 => Self::Missed { server: what.try_into().ok()?, user: whom.try_into().ok()? },
            6 => {
                let (room, sender) = (what.try_into().ok()?, whom.try_into().ok()?);
                Self::Delivery { room, sender, recipient: part.try_into().ok()? }
            }
            _ => return None,
        })
    }
}

/// Notes news in the transaction that makes them.
pub fn announce(tx: &Tx, news: &News) {
    tx.put(&OUTBOX_CHANGED, OUTBOX_NEWS, news.key(), &());
}

/// What was noted after `since`, each once, oldest first.
///
/// # Errors
/// Where the store cannot be read.
pub async fn news(snapshot: &Snapshot, since: &View) -> millrace_store::Result<Vec<News>> {
    let changes = snapshot.changes::<String>(OUTBOX_NEWS, since, usize::MAX).await?;
    let mut seen = rustc_hash::FxHashSet::default();
    let mut news = Vec::with_capacity(changes.len());
    for change in changes.iter().rev().filter(|change| change.table == OUTBOX_CHANGED.info().id) {
        if seen.insert(&change.key) {
            news.extend(News::from_key(OUTBOX_CHANGED.decode_key(&change.key)?));
        }
    }
    Ok(news)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use ruma::{owned_room_id, owned_server_name, owned_user_id};

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn news_are_told_once_and_only_later_ones() {
        let env = testing::env().await;
        let (room, user) = (owned_room_id!("!r:x"), owned_user_id!("@u:x"));
        let thread = String::new();
        let all = [
            News::Server { room: room.clone(), server: owned_server_name!("far.example") },
            News::Room(room.clone()),
            News::Receipt { room: room.clone(), user: user.clone(), thread },
            News::Joined { room: room.clone(), user: user.clone(), partial: false },
            News::Joined { room: room.clone(), user: user.clone(), partial: true },
            News::Missed { server: owned_server_name!("far.example"), user: user.clone() },
            News::Delivery { room, sender: owned_user_id!("@v:far.example"), recipient: user },
            News::ToDevice(owned_server_name!("far.example")),
        ];
        let before = env.store.snapshot().view().clone();
        let note = async |news: &[News]| {
            for news in news {
                let written = env.store.transact(|tx| {
                    announce(&tx, news);
                    std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
                });
                written.await.unwrap();
            }
        };
        note(&all).await;
        note(&all[..1]).await;
        let snapshot = env.store.snapshot();
        assert_eq!(news(&snapshot, &before).await.unwrap(), all);
        note(&all[1..2]).await;
        assert_eq!(news(&env.store.snapshot(), snapshot.view()).await.unwrap(), all[1..2]);
    }
}
