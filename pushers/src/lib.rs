//! The homeserver's side of push: what notifies users is sent to the gateways and mail addresses that
//! their pushers name.
//!
//! Start at [`Pushers`]. Sending an event knows nothing of it: `follow.rs` follows the log of commits
//! and marks, for users who have pushers, the rooms with news (`board.rs`). A pusher that is marked
//! is worked on by one step at a time (`step.rs`): it evaluates what is new by push rules, leaves out
//! what has been read meanwhile, and sends. Nothing is written while everything goes well but, now
//! and then, how far all got; a pusher that fails, and mail that waits, has a row of its own.

mod board;
mod follow;
mod http;
mod mail;
mod outside;
mod step;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use millrace_domain::{rooms::Rooms, unread::Unreads};
use parking_lot::Mutex;

pub use outside::{DigestMail, DigestRoom, GatewayError, Gateways, MailError, Mails};

/// What an administrator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushSettings {
    /// Whether anything is sent.
    pub enabled: bool,
    /// Whether gateways are given the content of events, unless a pusher wants only IDs.
    pub include_content: bool,
    /// What the badge counts.
    pub badge: Badge,
    /// Events older than this are not sent any more.
    pub expire: Duration,
    /// The longest pause between tries.
    pub retry_max: Duration,
    /// How long a message waits to be read before a mail is sent about it.
    pub mail_delay: Duration,
    /// The shortest time between two mails to one address.
    pub mail_interval: Duration,
}

/// What the badge counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Badge {
    /// Unread messages, as the specification has it.
    Messages,
    /// Rooms that have any.
    Rooms,
}

impl Default for PushSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            include_content: true,
            badge: Badge::Messages,
            expire: Duration::from_hours(24),
            retry_max: Duration::from_hours(1),
            mail_delay: Duration::from_mins(10),
            mail_interval: Duration::from_hours(1),
        }
    }
}

/// The senders of notifications.
pub struct Pushers {
    rooms: Rooms,
    unreads: Arc<Unreads>,
    gateways: Arc<dyn Gateways>,
    mails: Arc<dyn Mails>,
    settings: PushSettings,
    board: Mutex<board::Board>,
    recipients: Mutex<follow::Recipients>,
    /// The commit up to which news are marked.
    followed: AtomicU64,
    /// What is written down of that.
    noted: AtomicU64,
    /// Whether anybody was told anything since that was written.
    told: AtomicBool,
}

impl Pushers {
    /// Senders over `gateways` and `mails`. Nothing is sent before [`Pushers::run`].
    #[must_use]
    pub fn new(
        rooms: Rooms,
        unreads: Arc<Unreads>,
        gateways: Arc<dyn Gateways>,
        mails: Arc<dyn Mails>,
        settings: PushSettings,
    ) -> Self {
        Self {
            rooms,
            unreads,
            gateways,
            mails,
            settings,
            board: Mutex::default(),
            recipients: Mutex::default(),
            followed: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        self.rooms.env.now().get().into()
    }
}
