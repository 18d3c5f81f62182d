//! The media repository: uploads, downloads, and the files that they consist of (spec: Client-Server
//! API, Content repository).
//!
//! Start at [`Media`]. A file lies in the [`storage`] under the hash of its content; what is known of
//! it is in the store, and says how many media consist of it. Never here: HTTP handlers.

mod accessed;
mod blobs;
pub mod download;
mod due;
mod gates;
mod media;
pub mod moderate;
mod mxc;
pub mod preview;
pub mod remote;
pub mod remove;
mod retention;
pub mod sources;
mod spool;
pub mod storage;
pub mod thumbnail;
pub mod upload;
mod usage;

pub use self::{
    media::{Media, MediaParts, RecoverError, Settings},
    mxc::{InvalidMediaId, Mxc},
    spool::ReceiveError,
    usage::QuotaError,
};
