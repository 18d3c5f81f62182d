//! Whole servers over HTTP, each started by its test on loopback. All in one program: it links
//! RocksDB and the server once.

mod accounts;
mod administration;
mod appservices;
mod auth_fallback;
mod command_line;
mod consent;
mod deliveries;
mod encryption;
mod endpoints;
mod federation;
mod history_visibility;
mod mail_tls;
mod media;
mod media_bucket;
mod push;
mod reading_rooms;
mod retention;
mod rooms;
mod search;
mod sliding_sync;
mod sso;
mod sync;
mod sync_storm;
mod third_party_invites;
mod threepid;
mod user_data;
mod versions;
