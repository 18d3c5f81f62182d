//! Whether senders see that their messages have come to devices.

use millrace_domain::deliveries::DeliverySettings;
use serde::{Deserialize, Serialize};

/// Receipts of delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Whether there are any.
    pub allow_delivery_receipts: bool,
    /// In rooms with at most so many joined members the server makes them itself; 0: nowhere.
    pub automatic_delivery_receipts_members_max: u64,
}

impl Default for Delivery {
    fn default() -> Self {
        let DeliverySettings { enabled, members_max } = DeliverySettings::default();
        Self {
            allow_delivery_receipts: enabled,
            automatic_delivery_receipts_members_max: members_max,
        }
    }
}

impl Delivery {
    /// The settings as they are used.
    #[must_use]
    pub const fn settings(&self) -> DeliverySettings {
        DeliverySettings {
            enabled: self.allow_delivery_receipts,
            members_max: self.automatic_delivery_receipts_members_max,
        }
    }
}
