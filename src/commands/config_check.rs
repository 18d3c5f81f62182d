//! `millrace config check`: what is wrong with a configuration.

use std::path::Path;

use millrace_appservices::{LoadError, registration::load_files};

use crate::{
    config,
    mail::{MailSetupError, Messages},
};

/// Why a configuration is not good.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be used.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// A file that mails need cannot be used.
    #[error(transparent)]
    Mail(#[from] MailSetupError),
    /// A registration of an application service cannot be used.
    #[error(transparent)]
    Registration(#[from] LoadError),
    /// It has keys that mean nothing, a line for each.
    #[error("{0}")]
    Unknown(String),
}

/// Reads the configuration as `serve` does and says what it would start.
///
/// # Errors
/// All that is wrong, a line for each; unknown keys too, which `serve` only warns of.
pub fn run(file: &Path) -> Result<String, CheckError> {
    let config::Loaded { config, unknown } = config::load(Some(file))?;
    if !unknown.is_empty() {
        let lines: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        return Err(CheckError::Unknown(lines.join("\n")));
    }
    Messages::open(&config)?;
    if let Some(name) = config.server.name() {
        let section = &config.appservices;
        load_files(&section.appservice_files, section.appservice_dir.as_deref(), &name)?;
    }
    let addresses: Vec<String> =
        config.server.listen_on().map(|address| address.to_string()).collect();
    Ok(format!(
        "{} is good: {} on {}, data in {}",
        file.display(),
        config.server.server_name,
        addresses.join(", "),
        config.database.database_path.display()
    ))
}
