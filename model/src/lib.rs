//! Values and pure rules. Never here: I/O, clocks, storage.

pub mod position;
