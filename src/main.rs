//! The command line of the homeserver.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks")]

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use millrace::{
    commands::{
        config_check, generate_key,
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
        Command::RegisterUser { username, password, admin } => {
            let config = config::load(Some(&file))?.config;
            let username = username.map_or_else(|| register_user::ask("Username: "), Ok)?;
            let password = password.map_or_else(|| rpassword::prompt_password("Password: "), Ok)?;
            let admin = if admin { Admin::Yes } else { Admin::No };
            let user = NewUser { username, password, admin };
            println!("created {}", Runtime::new()?.block_on(register_user::run(&config, &user))?);
        }
    }
    Ok(())
}
