//! Application services, over HTTP both ways: what they are told, what they may ask, and what they are
//! asked. The services are the tests' own and listen on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

mod asking;
mod delivery;
mod lookups;
mod managing;
mod told;
mod world;
