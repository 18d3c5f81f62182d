//! Throws mutated input at the parsers of what others send: events, EDUs, canonical JSON, tokens,
//! the header of signed requests. `make fuzz` runs each target for a few seconds, on stable Rust.
//!
//! A target is a function of bytes that panics where a property does not hold ([`targets`]). Each
//! runs in a process of its own on a stack as small as the server's, so that a stack overflow is
//! found as well as a panic; an input that takes long for its size is a finding, too. What was found
//! is left in `target/fuzz/`; put it into `fuzz/found/TARGET/` once it is mended, and it is tried
//! first ever after.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the command line")]

mod campaign;
mod mutate;
mod random;
mod targets;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Parser;

use self::{campaign::Campaign, targets::TARGETS};

/// As much as a thread of the server has.
const STACK_BYTES: usize = 2 << 20;

/// Fuzzes the parsers of what others send.
#[derive(Parser)]
struct Options {
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// How long each target runs, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The same seed makes the same inputs.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the target in this process.
    #[arg(long, hide = true)]
    here: bool,
    /// Where to leave each input before it is tried.
    #[arg(long, hide = true)]
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(some_seed);
    let named = |name: &&str| options.target.as_ref().is_none_or(|target| target == name);
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).filter(named).collect();
    if names.is_empty() {
        eprintln!("There is no such target.");
        return ExitCode::FAILURE;
    }
    let failed = match options.here {
        true => run_here(names[0], seed, &options),
        false => names.iter().filter(|name| !supervise(name, seed, &options)).count() > 0,
    };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn some_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

/// Runs a target in this process; whether something was found.
fn run_here(name: &str, seed: u64, options: &Options) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("the name was chosen from the targets");
    let campaign = Campaign {
        target,
        seed,
        budget: Duration::from_secs(options.seconds),
        trace: options.trace.clone(),
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let running = thread.spawn(move || campaign.run()).expect("a thread can be started");
    match running.join().expect("panics of targets are caught") {
        Ok(tried) => {
            println!("{name}: {tried} inputs, nothing found");
            false
        }
        Err(found) => {
            println!("{name}: {found}");
            true
        }
    }
}

/// Runs a target in a process of its own; whether nothing was found.
fn supervise(name: &str, seed: u64, options: &Options) -> bool {
    let run = |more: &[&str]| {
        let program = std::env::current_exe().expect("this program has a path");
        let (seconds, seed) = (options.seconds.to_string(), seed.to_string());
        let mut command = Command::new(program);
        command.args(["--here", "--target", name, "--seconds", &seconds, "--seed", &seed]);
        command.args(more).status().expect("this program can be started again")
    };
    let status = run(&[]);
    if status.code().is_none() {
        // It died, as by a stack overflow: the same again, slowly, leaves what it died of.
        let input = campaign::found_folder().join(format!("{name}-died"));
        run(&["--trace", &input.to_string_lossy()]);
        println!("{name}: died ({status}) of {}", input.display());
    }
    if !status.success() {
        println!("{name}: again with --target {name} --seed {seed}");
    }
    status.success()
}
