//! What the rows of tables hold, one file per subject. Values only; rules live in the domain.

pub mod account;
pub mod appservice;
pub mod federation;
pub mod inbound;
pub mod keys;
pub mod media;
pub mod outbox;
pub mod outside;
pub mod partial;
pub mod receipt;
pub mod report;
pub mod room;
pub mod threepid;
pub mod user;
