//! How far messages have come on their way (MSC4089, Delivery receipts): to the server of whom they
//! are for, and to one of their devices.
//!
//! A device has what a sync told it once it comes back with the token of that response (`told.rs`). Of
//! what has come, the newest message of each sender in each room is written down behind the sync
//! (`worker.rs`), where only those syncs of the sender see it that ask for it. Nothing else looks
//! there: what was delivered is not read.

mod advance;
#[cfg(test)]
mod tests;
mod told;
mod worker;

use std::{collections::BTreeMap, sync::Arc};

use millrace_store::rows::receipt::{Reach, Receipt};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId};
use tokio::sync::Notify;

use self::told::Told;
pub use self::{advance::RemoteDelivery, told::Telling};
use crate::rooms::Rooms;

/// The type of a receipt that says: this has come to a device.
pub const DELIVERY: &str = "org.matrix.msc4089.delivery";
/// The type of a receipt that says: this has come to the server of that user. MSC4089 has none.
pub const SERVER_DELIVERY: &str = "org.millrace.server_delivery";
/// The account data with which users say whether the server makes receipts for their devices.
pub const CONFIG: &str = "org.millrace.delivery_receipts";

/// So much that has come may wait to be written down; what is beyond is dropped.
const ARRIVED_MAX: usize = 10_000;

/// What administrators decide about receipts of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverySettings {
    /// Whether there are any.
    pub enabled: bool,
    /// In rooms with at most so many joined members the server makes them itself.
    pub members_max: u64,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self { enabled: true, members_max: 10 }
    }
}

/// Whose messages have come to whom, and how far: all of them, or the newest, in one room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    room: OwnedRoomId,
    sender: OwnedUserId,
    recipient: OwnedUserId,
    reach: Reach,
}

/// Notes how far messages have come. Whoever builds it also runs [`Deliveries::run`].
pub struct Deliveries {
    rooms: Rooms,
    settings: DeliverySettings,
    told: Told,
    /// What has come and is not written down yet: the newest on each way.
    arrived: Mutex<BTreeMap<Way, Receipt>>,
    news: Notify,
}

impl Deliveries {
    /// Nothing is written down before [`Deliveries::run`].
    #[must_use]
    pub fn new(rooms: Rooms, settings: DeliverySettings) -> Arc<Self> {
        let (told, arrived, news) = Default::default();
        Arc::new(Self { rooms, settings, told, arrived, news })
    }

    /// Whether there are receipts of delivery at all.
    #[must_use]
    pub const fn are_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// Notes what has come, to be written down soon.
    fn arrive(&self, arrivals: impl IntoIterator<Item = (Way, Receipt)>) {
        let mut arrived = self.arrived.lock();
        for (way, receipt) in arrivals {
            let known = arrived.get(&way);
            let fits = known.is_some() || arrived.len() < ARRIVED_MAX;
            if fits && known.is_none_or(|known| known.n < receipt.n) {
                arrived.insert(way, receipt);
            }
        }
        if !arrived.is_empty() {
            self.news.notify_one();
        }
    }
}
