//! What the store must do on every engine, and after every kind of fault.

mod crash;
mod faults;
mod heads;
mod limits;
pub(crate) mod place;
mod positions;
mod serialisable;
mod views;
mod workload;
