//! The configuration: a file per section of `conduit.toml`, and [`load()`] that reads them.
//!
//! Each consumer gets the plain values of its section, never the whole [`Config`].

pub mod accounts;
pub mod appservices;
pub mod database;
pub mod delivery;
pub mod email;
pub mod federation;
pub mod inbound;
pub mod limits;
mod load;
pub mod log;
pub mod media;
pub mod media_bucket;
pub mod password_hash;
pub mod presence;
pub mod push;
pub mod rate_limits;
pub mod registration;
pub mod retention;
pub mod rooms;
pub mod server;
pub mod server_notices;
pub mod sso;
#[cfg(test)]
mod tests;
pub mod threepids;
pub mod to_device;
pub mod voip;
pub mod well_known;

use std::time::Duration;

pub use self::load::{Config, ConfigError, Loaded, UnknownKey, load, parse};

/// The commented sample, `conduit.toml`, which has every option and its default.
pub const SAMPLE: &str = include_str!("../../conduit.toml");

/// What is wrong with values: sentences that begin with the name of the key.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

/// How long something is kept that an option gives so many days; for ever where that is none.
fn days(days: u32) -> Option<Duration> {
    (days > 0).then(|| Duration::from_hours(24 * u64::from(days)))
}

impl Problems {
    /// Adds `key: problem` unless `holds`.
    fn require(&mut self, holds: bool, key: &str, problem: &str) {
        if !holds {
            self.0.push(format!("{key}: {problem}"));
        }
    }
}
