//! What is logged, and how.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::Problems;

/// The log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// A level, or levels by module: `"info"`, `"warn,millrace=debug"`.
    pub log: String,
    /// Lines for people, or JSON for machines.
    pub log_format: Format,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object for each event.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        // Why the rules allow an event is worth no line for each event.
        Self { log: "info,ruma_state_res=warn".to_owned(), log_format: Format::Text }
    }
}

impl Log {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let known = EnvFilter::try_new(&self.log).is_ok();
        problems.require(known, "log", "must be a level (\"info\") or levels by module");
    }
}
