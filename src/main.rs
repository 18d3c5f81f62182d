//! The command line of the homeserver.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks")]

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use millrace::{
    commands::{
        appservice::{self, Action},
        config_check,
        export_user_data::{self, Export},
        generate_key,
        register_user::{self, Admin, NewUser},
        serve,
    },
    config, identity,
    system::SystemRandom,
};
use tokio::runtime::Runtime;

type Failure = Box<dyn std::error::Error>;

/// A Matrix homeserver.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file.
    #[arg(short, long, global = true, env = "MILLRACE_CONFIG", default_value = "conduit.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the homeserver until it is interrupted.
    Serve,
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a new signing key: into a file, or to the screen.
    GenerateKey {
        /// A file that does not exist yet.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Write everything that the running server holds of a user into a file, as lines of JSON.
    ExportUserData {
        /// The user ID, or the part of it before the colon.
        #[arg(short, long)]
        user: String,
        /// A file that does not exist yet.
        #[arg(short, long)]
        output: PathBuf,
        /// An administrator's access token. Better left out: it is asked for, unseen.
        #[arg(long, env = "MILLRACE_ACCESS_TOKEN", hide_env_values = true)]
        access_token: Option<String>,
    },
    /// Bridges and bots of the running server (application services).
    Appservice {
        /// An administrator's access token. Better left out: it is asked for, unseen.
        #[arg(long, env = "MILLRACE_ACCESS_TOKEN", hide_env_values = true)]
        access_token: Option<String>,
        #[command(subcommand)]
        command: AppserviceCommand,
    },
    /// Create an account on the running server. Needs registration_shared_secret.
    RegisterUser {
        /// The part of the user ID before the colon.
        #[arg(short, long)]
        username: Option<String>,
        /// The password. Better left out: it is asked for, unseen.
        #[arg(short, long)]
        password: Option<String>,
        /// Make the account an administrator's.
        #[arg(short, long)]
        admin: bool,
    },
}

#[derive(Subcommand)]
enum AppserviceCommand {
    /// Register the service that a file describes (YAML), for good, or change it.
    Register {
        /// The registration, as the bridge generates it.
        file: PathBuf,
    },
    /// Remove a service that was registered by command. What waits for it is forgotten.
    Unregister {
        /// Its id.
        id: String,
    },
    /// Tell how all services are doing.
    List,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say what is wrong with the configuration, unknown options too.
    Check,
    /// Print a commented configuration with every option and its default.
    Sample,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(Cli { config: file, command }: Cli) -> Result<(), Failure> {
    match command {
        Command::Serve => Runtime::new()?.block_on(serve::run(&file))?,
        Command::Config(ConfigCommand::Check) => println!("{}", config_check::run(&file)?),
        Command::Config(ConfigCommand::Sample) => print!("{}", config::SAMPLE),
        Command::GenerateKey { output } => {
            let key = identity::generate(&SystemRandom);
            match output {
                Some(path) => generate_key::write(&key, &path)?,
                None => print!("{}", key.to_file_text()),
            }
        }
        Command::ExportUserData { user, output, access_token } => {
            let config = config::load(Some(&file))?.config;
            let access_token =
                access_token.map_or_else(|| rpassword::prompt_password("Access token: "), Ok)?;
            let export = Export { user, output, access_token };
            let lines = Runtime::new()?.block_on(export_user_data::run(&config, &export))?;
            println!("wrote {lines} lines to {}", export.output.display());
        }
        Command::Appservice { access_token, command } => {
            let config = config::load(Some(&file))?.config;
            let access_token =
                access_token.map_or_else(|| rpassword::prompt_password("Access token: "), Ok)?;
            let action = match command {
                AppserviceCommand::Register { file } => Action::Register(file),
                AppserviceCommand::Unregister { id } => Action::Unregister(id),
                AppserviceCommand::List => Action::List,
            };
            let told = appservice::run(&config, &action, &access_token);
            println!("{}", Runtime::new()?.block_on(told)?);
        }
        Command::RegisterUser { username, password, admin } => {
            let config = config::load(Some(&file))?.config;
            let username = username.map_or_else(|| register_user::ask("Username: "), Ok)?;
            let password = password.map_or_else(register_user::ask_new_password, Ok)?;
            let admin = if admin { Admin::Yes } else { Admin::No };
            let user = NewUser { username, password, admin };
            println!("created {}", Runtime::new()?.block_on(register_user::run(&config, &user))?);
        }
    }
    Ok(())
}
