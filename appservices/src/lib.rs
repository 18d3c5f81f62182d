//! Application services: bridges and bots that own namespaces of users and aliases (spec: Application
//! Service API).
//!
//! Start at [`AppServices`]. A service is known by its [`registration`]. What it is to be told is
//! found by following the log of commits ([`follow`]), and put into a queue of its own in the store;
//! a worker for each service ([`send`]) sends what is in there, in order, until the service has
//! acknowledged it. So a service that is down is a timer and rows on the disk, and nothing that
//! sends or syncs ever waits for one. The other way, a service asks in the names of its users
//! ([`identity`]), and is asked for users, aliases and networks ([`query`], [`third_party`]).

mod call;
mod follow;
pub mod identity;
pub mod network_rooms;
pub mod ping;
pub mod query;
pub mod registration;
mod send;
mod services;
pub mod third_party;

pub use self::{
    call::CallError,
    registration::{LoadError, Registry, Service},
    services::{
        AppServices, ManageError, OpenError, Parts, ServiceStatus, Settings, SharedRegistry,
    },
};
