//! What servers say to each other: asking others, checking what they say, and telling them what
//! happened here (spec: Server-Server API).
//!
//! Start at [`Federation`]. What others ask of us comes in through `src/federation_api` of the binary,
//! whose handlers call operations here and in the domain. Never here: HTTP handlers, room rules.

pub mod addresses;
pub mod check;
mod connector;
mod cores;
mod delivery_edus;
pub mod destinations;
pub mod directory;
mod federation;
pub mod hierarchy;
pub mod http;
pub mod identity_servers;
pub mod inbound;
pub mod internet;
pub mod keyring;
pub mod large_answer;
pub mod media;
pub mod membership;
mod multipart;
pub mod outbound;
pub mod pages;
pub mod peers;
pub mod policy;
pub mod profiles;
pub mod signing;
#[cfg(test)]
mod testing;
mod time;
pub mod transport;
mod well_known;

pub use self::{
    check::Refusal,
    destinations::Destinations,
    federation::{Federation, FederationParts, Settings},
    outbound::{Outbound, OutboundSettings},
    peers::{PeerError, Peers},
    transport::Transport,
};
