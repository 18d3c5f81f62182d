//! Messages from device to device.

use millrace_domain::to_device::Lifetimes;
use serde::{Deserialize, Serialize};

use super::days;

/// The table `to_device`: how long messages wait, in days; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDevice {
    /// For a device of this server that does not sync.
    pub device_lifetime_days: u32,
    /// For another server that cannot be reached.
    pub server_lifetime_days: u32,
}

impl Default for ToDevice {
    fn default() -> Self {
        Self { device_lifetime_days: 90, server_lifetime_days: 30 }
    }
}

impl ToDevice {
    /// The lifetimes as they are used.
    #[must_use]
    pub fn lifetimes(self) -> Lifetimes {
        Lifetimes {
            device: days(self.device_lifetime_days),
            server: days(self.server_lifetime_days),
        }
    }
}
