//! A whole homeserver in a test's process: memory engine, simulated clock, seeded randomness.
//!
//! Start at [`TestServer::start`]. A dev-dependency only.

mod client;
mod fake_server;
mod network;
mod recorder;
mod server;
mod world;

pub use self::{
    client::{Answer, Client},
    fake_server::{Asked, FakeAnswer, FakeEvent, FakeRoom, FakeServer, wire},
    network::Network,
    recorder::{Manner, Recorder, Transaction},
    server::TestServer,
    world::{SeededRandom, TestClock},
};
