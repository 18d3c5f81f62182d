//! Joining, knocking, inviting and leaving where another server has a part in it (spec: Server-Server
//! API, Joining Rooms to Leaving Rooms).
//!
//! `join`, `knock`, `leave` and `invite` are what we ask of others; `serve_*` what they ask of us.

mod admission;
mod candidates;
mod handshakes;
pub mod invite;
mod invite_v1;
pub mod join;
pub mod knock;
pub mod leave;
pub mod serve_invite;
pub mod serve_join;
pub mod serve_knock;
mod shown;
pub mod submit;
mod template;
pub mod third_party_invite;
pub mod turned_away;

pub use self::{
    admission::BadAnswer, candidates::NobodyHelped, handshakes::Handshakes, template::TemplateError,
};
