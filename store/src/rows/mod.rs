//! What the rows of tables hold, one file per subject. Values only; rules live in the domain.

pub mod account;
pub mod federation;
pub mod inbound;
pub mod outbox;
pub mod outside;
pub mod receipt;
pub mod report;
pub mod room;
pub mod user;
