//! The command line of the push gateway.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millrace_push_gateway::{config, serve};
use tokio::runtime::Runtime;

/// A Matrix push gateway: takes notifications from homeservers, and sends them to devices over FCM,
/// APNs and Web Push.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The configuration file.
    #[arg(short, long, env = "MILLRACE_PUSH_GATEWAY_CONFIG", default_value = "push-gateway.toml")]
    config: PathBuf,
    /// Say what is wrong with the configuration, keys and certificates included, and end.
    #[arg(long)]
    check: bool,
    /// Print a commented configuration, and end.
    #[arg(long)]
    sample: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace-push-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    if cli.sample {
        print!("{}", config::SAMPLE);
        return Ok(());
    }
    let config = config::load(&cli.config)?;
    if cli.check {
        let runtime = Runtime::new()?;
        let _inside = runtime.enter();
        millrace_push_gateway::gateway::Gateway::new(&config)?;
        println!("{}: {} apps", cli.config.display(), config.apps.len());
        return Ok(());
    }
    Runtime::new()?.block_on(serve::run(&config))?;
    Ok(())
}
