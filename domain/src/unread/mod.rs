//! What users have not read: events that notify them, counted by room and thread (spec:
//! Client-Server API, Receiving notifications).
//!
//! Start at [`Unreads::counts`]. A count goes on from the last one of the same user and room, which
//! is remembered in memory and, where it took long, in the store; so each event is evaluated once
//! for each recipient. Sending writes nothing.

mod count;
mod evaluate;
mod notifications;
mod pushes;

pub use self::{
    count::{Counts, UnreadError, Unreads},
    notifications::{Notification, NotificationsPage, NotificationsQuery, notifications},
    pushes::{PushedEvent, UnreadTotal, first_after},
};

#[cfg(test)]
mod tests;
