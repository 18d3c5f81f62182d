//! Writing down what has come, behind the requests that show it.

use std::{collections::BTreeMap, sync::Arc};

use millrace_model::rules::join::JoinRules;
use millrace_store::{
    Read, Snapshot,
    rows::receipt::{Reach, Receipt},
    tables::{CURRENT_STATE, ROOM_HEAD},
};
use ruma::{RoomId, UserId, room::JoinRuleKind};
use serde::Deserialize;

use super::{CONFIG, Deliveries, Way, advance::is_news};
use crate::{account_data, rooms::events::LoadError};

/// So much is written in one commit.
const BATCH: usize = 200;

/// What users say in their account data. A client that makes receipts itself, for what it could
/// decrypt, has good reason to switch ours off; so has who wants none.
#[derive(Deserialize)]
struct Config {
    automatic: bool,
}

impl Deliveries {
    /// Writes down what comes, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.news.notified().await;
            while let Some(batch) = self.take() {
                if let Err(error) = self.keep(batch).await {
                    tracing::error!(%error, "what was delivered cannot be noted");
                }
            }
        }
    }

    /// The next to be written. What comes meanwhile is merged with the rest: one row for each way.
    fn take(&self) -> Option<BTreeMap<Way, Receipt>> {
        let mut arrived = self.arrived.lock();
        let rest = arrived.keys().nth(BATCH).cloned();
        let rest = rest.map(|first| arrived.split_off(&first)).unwrap_or_default();
        let batch = std::mem::replace(&mut *arrived, rest);
        (!batch.is_empty()).then_some(batch)
    }

    async fn keep(&self, batch: BTreeMap<Way, Receipt>) -> Result<(), LoadError> {
        // Looked at first: most of what a second device or an initial sync brings is known, and costs
        // no commit.
        let snapshot = self.rooms.env.store.snapshot();
        let mut wanted = Vec::new();
        for (way, receipt) in batch {
            if is_news(&snapshot, &way, &receipt).await? && self.is_told(&snapshot, &way).await? {
                wanted.push((way, receipt));
            }
        }
        self.write(&wanted).await?;
        Ok(())
    }

    /// Whether a sender is told of this without the doing of the recipient's client: not in public
    /// rooms (MSC4089, Security considerations), and not where the recipient does not want it.
    async fn is_told(&self, snapshot: &Snapshot, way: &Way) -> Result<bool, LoadError> {
        let willing = way.reach == Reach::Server || is_willing(snapshot, &way.recipient).await?;
        Ok(willing && !self.is_public(snapshot, &way.room).await?)
    }

    async fn is_public(&self, snapshot: &Snapshot, room: &RoomId) -> Result<bool, LoadError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(false) };
        let place = ("m.room.join_rules", "");
        let Some(number) = snapshot.get(&CURRENT_STATE, room, place).await? else {
            return Ok(false);
        };
        let events = &self.rooms.events;
        let event = events.load_one(snapshot, room, &head.version, number).await?;
        Ok(JoinRules::new(Some(&event.pdu)).rule == JoinRuleKind::Public)
    }
}

/// Whether a user lets the server make receipts for their devices. Malformed content is no refusal.
async fn is_willing(read: &impl Read, user: &UserId) -> millrace_store::Result<bool> {
    let content = account_data::get(read, user, None, CONFIG).await?;
    let config = content.and_then(|text| serde_json::from_str::<Config>(&text).ok());
    Ok(config.is_none_or(|config| config.automatic))
}
