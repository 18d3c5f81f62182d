//! The configuration: a file of TOML, an app's options under `[apps."its ID"]`.

mod apps;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::{Deserialize, Deserializer};

pub use apps::{
    ApnsOptions, App, Common, FcmOptions, Platform, PushType, SentPriority, VendorOptions,
    WebPushOptions,
};

use crate::internet::AddressRange;

/// A commented file with every option and its default.
pub const SAMPLE: &str = include_str!("../../push-gateway.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where homeservers reach us.
    pub address: SocketAddr,
    /// Where Prometheus reads `/metrics`; absent for nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// What is logged, as `tracing` filters are written.
    pub log: String,
    /// How it is written.
    pub log_format: LogFormat,
    /// An HTTP proxy through which vendors are reached.
    pub proxy: Option<String>,
    /// Files of further authorities (PEM).
    pub ca_certificates: Vec<PathBuf>,
    /// Addresses that are not public, to which Web Push may go all the same.
    #[serde(deserialize_with = "ranges")]
    pub allowed_addresses: Vec<AddressRange>,
    /// Calls of homeservers that are worked on at the same time.
    pub calls_max: usize,
    /// How long a homeserver waits for an answer at most, in seconds.
    pub answer_within_s: u64,
    /// How long one request to a vendor may take, in seconds.
    pub request_timeout_s: u64,
    /// How long what was accepted is tried again, in seconds.
    pub retry_for_s: u64,
    /// How long what is under way may take when the gateway is to stop, in seconds.
    pub shutdown_s: u64,
    /// The apps by their ID or a pattern of IDs.
    pub apps: BTreeMap<String, App>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not TOML, or an option has a value that it cannot have.
    #[error("{0}")]
    Invalid(Problem),
    /// Values that cannot be used, a line for each.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// What is wrong where.
#[derive(Debug)]
pub struct Problem(Box<figment::Error>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.path.join(".");
        if path.is_empty() {
            write!(f, "{}", self.0.kind)
        } else {
            write!(f, "{path}: {}", self.0.kind)
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 5000)),
            metrics_address: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            proxy: None,
            ca_certificates: Vec::new(),
            allowed_addresses: Vec::new(),
            calls_max: 2048,
            answer_within_s: 10,
            request_timeout_s: 8,
            retry_for_s: 600,
            shutdown_s: 30,
            apps: BTreeMap::new(),
        }
    }
}

/// Reads the configuration.
///
/// # Errors
/// What is wrong, and where.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    parse(&text)
}

/// Reads the configuration from a file's text.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    let config: Config = Figment::from(Toml::string(text))
        .extract()
        .map_err(|error| ConfigError::Invalid(Problem(Box::new(error))))?;
    config.validate()?;
    Ok(config)
}

impl Config {
    /// See `answer_within_s`.
    #[must_use]
    pub fn answer_within(&self) -> Duration {
        Duration::from_secs(self.answer_within_s)
    }

    /// See `request_timeout_s`.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_s)
    }

    /// See `retry_for_s`.
    #[must_use]
    pub fn retry_for(&self) -> Duration {
        Duration::from_secs(self.retry_for_s)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(self.calls_max > 0, "calls_max: must not be 0".to_owned());
        require(self.request_timeout_s > 0, "request_timeout_s: must not be 0".to_owned());
        require(
            self.answer_within_s >= self.request_timeout_s,
            "answer_within_s: must not be shorter than request_timeout_s".to_owned(),
        );
        require(!self.apps.is_empty(), "apps: there is none, so nothing can be sent".to_owned());
        if let Some(proxy) = &self.proxy {
            let is_url = proxy.starts_with("http://") || proxy.starts_with("https://");
            require(is_url, "proxy: must start with http:// or https://".to_owned());
        }
        for (id, app) in &self.apps {
            if let Err(problem) = app.validate() {
                require(false, format!("apps.{id}.{problem}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Values(problems)) }
    }
}

fn ranges<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<AddressRange>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests;
