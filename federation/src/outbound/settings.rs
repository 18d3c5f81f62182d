//! Bounds of what is sent.

use std::time::Duration;

use millrace_domain::keys::Names;

/// How much is sent at once, and how long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Whether anything is sent at all.
    pub enabled: bool,
    /// Whether other servers are told who is online.
    pub presence: bool,
    /// Whether other servers are told who types.
    pub typing: bool,
    /// Whether other servers are told what was read, and what has come to devices.
    pub receipts: bool,
    /// Whether other servers are told the names of devices.
    pub device_names: Names,
    /// Transactions under way at once, each to another server that answered the last time.
    pub sends_at_once: usize,
    /// Transactions under way at once to servers that did not answer, or never did yet.
    pub tries_at_once: usize,
    /// How long an answer to a transaction may take.
    pub answer_timeout: Duration,
    /// How long the task of a server without news stays before it ends.
    pub linger: Duration,
    /// Rooms whose servers are kept in memory.
    pub rooms_cached: usize,
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            presence: true,
            typing: true,
            receipts: true,
            device_names: Names::Hidden,
            sends_at_once: 256,
            tries_at_once: 64,
            answer_timeout: Duration::from_mins(1),
            linger: Duration::from_secs(10),
            rooms_cached: 1000,
        }
    }
}
