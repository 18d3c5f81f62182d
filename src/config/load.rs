//! Defaults, then `conduit.toml`, then `MILLRACE_…` of the environment, in one function.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Value},
};
use serde::de::DeserializeOwned;

use super::{
    Problems, accounts::Accounts, appservices::AppServices, database::Database, delivery::Delivery,
    email::Email, federation::Federation, inbound::Inbound, limits::Limits, log::Log, media::Media,
    password_hash::PasswordHash, presence::Presence, push::Push, rate_limits::RateLimits,
    registration::Registration, retention::Retention, rooms::Rooms, server::Server,
    server_notices::ServerNotices, sso::Sso, threepids::Threepids, to_device::ToDevice, voip::Voip,
    well_known::WellKnown,
};

/// The prefix of environment variables; a table and its key are joined by two underscores.
const ENV_PREFIX: &str = "MILLRACE_";
/// Variables with our prefix that are arguments of programs, not options.
const ENV_ARGUMENTS: [&str; 3] = ["config", "bin", "access_token"];

/// Everything that can be configured, by section.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Name and addresses.
    pub server: Server,
    /// Storage.
    pub database: Database,
    /// Who may create an account.
    pub registration: Registration,
    /// Lifetimes of tokens.
    pub accounts: Accounts,
    /// Addresses of users, and identity servers.
    pub threepids: Threepids,
    /// Table `email`.
    pub email: Email,
    /// Single sign-on and captchas.
    pub sso: Sso,
    /// Table `password_hash`.
    pub password_hash: PasswordHash,
    /// Rooms and their directory.
    pub rooms: Rooms,
    /// Who sees who is online.
    pub presence: Presence,
    /// Who sees what has come.
    pub delivery: Delivery,
    /// Table `push`.
    pub push: Push,
    /// Table `retention`.
    pub retention: Retention,
    /// Table `to_device`.
    pub to_device: ToDevice,
    /// Table `server_notices`.
    pub server_notices: ServerNotices,
    /// Where calls find a TURN server.
    pub voip: Voip,
    /// Bridges and bots.
    pub appservices: AppServices,
    /// Other servers.
    pub federation: Federation,
    /// Table `inbound`.
    pub inbound: Inbound,
    /// Table `media`.
    pub media: Media,
    /// Sizes.
    pub limits: Limits,
    /// Table `rate_limits`.
    pub rate_limits: RateLimits,
    /// Table `well_known`.
    pub well_known: WellKnown,
    /// The log.
    pub log: Log,
}

/// A configuration that can be used, and what in its sources meant nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The valid configuration.
    pub config: Config,
    /// Keys that no section has.
    pub unknown: Vec<UnknownKey>,
}

/// A key that means nothing to this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The key as found, tables joined by dots.
    pub key: String,
    /// The known key that looks most like it, if one does.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown option {}", self.key)?;
        self.nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; did you mean {nearest}?"))
    }
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
    /// The file is not TOML.
    #[error("the configuration is not valid TOML: {0}")]
    Syntax(String),
    /// A value has the wrong type.
    #[error("{key}: {problem}")]
    Type {
        /// The option.
        key: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// Values that cannot be used, a line for each, beginning with the key.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// Reads the configuration from the defaults, `file`, and the environment.
///
/// # Errors
/// A sentence for whatever stands in the way. Unknown keys are no error here.
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    let text = match file {
        Some(path) => fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?,
        None => String::new(),
    };
    let env = Env::prefixed(ENV_PREFIX).ignore(&ENV_ARGUMENTS).split("__");
    parse(&text, Figment::from(env))
}

/// Reads the configuration from a file's text and a further source that goes above it.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, above: Figment) -> Result<Loaded, ConfigError> {
    let file = Figment::from(Toml::string(text))
        .extract::<Dict>()
        .map_err(|error| ConfigError::Syntax(error.kind.to_string()))?;
    let given = Figment::from(Serialized::defaults(without_global(file))).merge(above);
    let found = given.extract::<Dict>().map_err(|error| type_error(&error, None))?;
    let source = Config::default_source().merge(given);
    let config = Config::read(&source)?;
    config.validate()?;
    Ok(Loaded { config, unknown: unknown_keys(&found, &known_keys()) })
}

impl Config {
    fn read(source: &Figment) -> Result<Self, ConfigError> {
        Ok(Self {
            server: section(source, None)?,
            database: section(source, None)?,
            registration: section(source, None)?,
            accounts: section(source, None)?,
            threepids: section(source, None)?,
            email: section(source, Some("email"))?,
            sso: section(source, None)?,
            password_hash: section(source, Some("password_hash"))?,
            rooms: section(source, None)?,
            presence: section(source, None)?,
            delivery: section(source, None)?,
            push: section(source, Some("push"))?,
            retention: section(source, Some("retention"))?,
            to_device: section(source, Some("to_device"))?,
            server_notices: section(source, Some("server_notices"))?,
            voip: section(source, None)?,
            appservices: section(source, None)?,
            federation: section(source, None)?,
            inbound: section(source, Some("inbound"))?,
            media: section(source, Some("media"))?,
            limits: section(source, None)?,
            rate_limits: section(source, Some("rate_limits"))?,
            well_known: section(source, Some("well_known"))?,
            log: section(source, None)?,
        })
    }

    /// The defaults of all sections in one source.
    fn default_source() -> Figment {
        let Self {
            server,
            database,
            registration,
            accounts,
            threepids,
            email,
            sso,
            password_hash,
            rooms,
            presence,
            delivery,
            push,
            retention,
            to_device,
            server_notices,
            voip,
            appservices,
            federation,
            inbound,
            media,
            limits,
            rate_limits,
            well_known,
            log,
        } = Self::default();
        Figment::from(Serialized::defaults(server))
            .merge(Serialized::defaults(database))
            .merge(Serialized::defaults(registration))
            .merge(Serialized::defaults(accounts))
            .merge(Serialized::defaults(threepids))
            .merge(Serialized::default("email", email))
            .merge(Serialized::defaults(sso))
            .merge(Serialized::default("password_hash", password_hash))
            .merge(Serialized::defaults(rooms))
            .merge(Serialized::defaults(presence))
            .merge(Serialized::defaults(delivery))
            .merge(Serialized::default("push", push))
            .merge(Serialized::default("retention", retention))
            .merge(Serialized::default("to_device", to_device))
            .merge(Serialized::default("server_notices", server_notices))
            .merge(Serialized::defaults(voip))
            .merge(Serialized::defaults(appservices))
            .merge(Serialized::defaults(federation))
            .merge(Serialized::default("inbound", inbound))
            .merge(Serialized::default("media", media))
            .merge(Serialized::defaults(limits))
            .merge(Serialized::default("rate_limits", rate_limits))
            .merge(Serialized::default("well_known", well_known))
            .merge(Serialized::defaults(log))
    }

    /// The address at which people reach this server, without a slash at its end.
    #[must_use]
    pub fn base_url(&self) -> String {
        let usual = || format!("https://{}", self.server.server_name);
        let url = self.well_known.client.clone().unwrap_or_else(usual);
        url.trim_end_matches('/').to_owned()
    }

    /// Every pair of address and port to serve other servers on.
    pub fn federation_on(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let addresses = self.federation.federation_address.as_ref();
        let addresses = addresses.unwrap_or(&self.server.address).as_slice();
        let ports =
            self.federation.federation_port.iter().flat_map(super::server::OneOrMany::as_slice);
        ports.flat_map(move |port| {
            addresses.iter().map(move |address| SocketAddr::new(*address, *port))
        })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.server.validate(&mut problems);
        self.database.validate(&mut problems);
        self.registration.validate(&mut problems);
        self.accounts.validate(&mut problems);
        self.threepids.validate(&mut problems, self.email.smtp_host.is_some());
        self.email.validate(&mut problems, self.well_known.client.as_deref());
        self.sso.validate(&mut problems, self.well_known.client.as_deref());
        self.password_hash.validate(&mut problems);
        self.rooms.validate(&mut problems);
        self.push.validate(&mut problems);
        self.retention.validate(&mut problems);
        self.server_notices.validate(&mut problems);
        self.voip.validate(&mut problems);
        self.appservices.validate(&mut problems);
        self.inbound.validate(&mut problems);
        self.media.validate(&mut problems);
        self.federation.validate(&mut problems);
        self.limits.validate(&mut problems);
        self.rate_limits.validate(&mut problems);
        self.well_known.validate(&mut problems);
        self.log.validate(&mut problems);
        if problems.0.is_empty() { Ok(()) } else { Err(ConfigError::Values(problems.0)) }
    }
}

/// Files of the Conduit family have everything in a table `global`; we take it with or without.
fn without_global(mut file: Dict) -> Dict {
    if let Some(Value::Dict(_, global)) = file.remove("global") {
        file.extend(global);
    }
    file
}

/// One section, from the table `table` if it has one. What is absent has been filled in below.
fn section<T: DeserializeOwned>(source: &Figment, table: Option<&str>) -> Result<T, ConfigError> {
    let extracted = match table {
        Some(table) => source.focus(table).extract(),
        None => source.extract(),
    };
    extracted.map_err(|error| type_error(&error, table))
}

fn type_error(error: &figment::Error, table: Option<&str>) -> ConfigError {
    let path: Vec<&str> = table.into_iter().chain(error.path.iter().map(String::as_str)).collect();
    ConfigError::Type { key: path.join("."), problem: error.kind.to_string() }
}

/// Every key that a section has.
pub(super) fn known_keys() -> BTreeSet<String> {
    let defaults = Config::default_source().extract::<Dict>();
    leaf_keys(&defaults.expect("defaults serialise")).into_iter().collect()
}

/// Every key that a text of TOML sets.
#[cfg(test)]
pub(super) fn keys_of(text: &str) -> BTreeSet<String> {
    let file = Figment::from(Toml::string(text)).extract::<Dict>().unwrap();
    leaf_keys(&without_global(file)).into_iter().collect()
}

/// The dotted keys of everything that is not a table.
fn leaf_keys(dict: &Dict) -> Vec<String> {
    dict.iter()
        .flat_map(|(key, value)| match value {
            Value::Dict(_, inner) => {
                leaf_keys(inner).into_iter().map(|leaf| format!("{key}.{leaf}")).collect()
            }
            _ => vec![key.clone()],
        })
        .collect()
}

fn unknown_keys(found: &Dict, known: &BTreeSet<String>) -> Vec<UnknownKey> {
    leaf_keys(found)
        .into_iter()
        .filter(|key| !known.contains(key))
        .map(|key| UnknownKey { nearest: nearest(&key, known), key })
        .collect()
}

fn nearest(key: &str, known: &BTreeSet<String>) -> Option<String> {
    let distance = |candidate: &String| strsim::damerau_levenshtein(key, candidate);
    let best = known.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= (key.len() / 3).max(2)).then(|| best.clone())
}
