//! What comes in from other servers (spec: Server-Server API, Transactions; Backfilling and
//! retrieving missing events).
//!
//! A transaction is checked and its events put into durable queues, one for each room
//! ([`Inbound::accept`]). A worker for each room that has something in its queue receives it, and
//! fetches what is missing ([`Inbound::run`]).

mod answers;
mod backfill;
mod by_time;
mod device_lists;
mod edus;
mod fetch;
mod late;
mod order;
mod partial_rooms;
mod parts;
mod queue;
mod receive;
mod schedule;
mod serving;
mod transaction;
mod user_keys;
mod vain;
mod workers;

pub use self::{
    by_time::Fetched,
    device_lists::DevicesError,
    parts::{FetchLimits, Inbound, InboundSettings, QueueLimits},
    transaction::{AcceptError, EDUS_MAX, PDUS_MAX, Results, Transaction},
    user_keys::{Answered, OneTimeKeys, Wanted},
};
