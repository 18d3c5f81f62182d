//! Where the log goes: standard error, as text or as JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::log::{Format, Log};

/// Starts logging for the process. A second call changes nothing.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.log_format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}
