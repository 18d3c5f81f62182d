//! The values of Matrix and its pure rules: events, positions, and the decisions made over them.
//!
//! Start at [`Pdu`], an event parsed once, and at [`rules`], where every rule of rooms is a function
//! over values with lookups passed in. Never here: I/O, clocks, randomness, tasks, storage, HTTP.

pub mod client_event;
pub mod encryption;
pub mod event_fields;
pub mod filter;
pub mod identifiers;
pub mod json;
pub mod pdu;
pub mod position;
pub mod relations;
pub mod rules;

pub use client_event::ClientForm;
pub use pdu::{EventNumber, Pdu};
pub use position::{PageToken, Position, SyncToken, TimelineIndex, View};
