//! A whole homeserver in a test's process: memory engine, simulated clock, seeded randomness.
//!
//! Start at [`TestServer::start`]. A dev-dependency only.

pub mod bench;
mod client;
mod fake_server;
mod mail_sink;
mod network;
mod recorder;
mod server;
mod test_service;
mod world;

pub use self::{
    client::{Answer, Client},
    fake_server::{Asked, FakeAnswer, FakeEvent, FakeRoom, FakeServer, wire},
    mail_sink::{MailSink, SunkMail},
    network::Network,
    recorder::{Manner, Recorder, Transaction},
    server::TestServer,
    test_service::TestService,
    world::{SeededRandom, TestClock},
};
