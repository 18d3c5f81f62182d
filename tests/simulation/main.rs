//! Many servers on a simulated clock and network that delays, drops, duplicates and cuts, with
//! crashes between any two writes; after healing all hold the same rooms.
//!
//! A run follows from its seed, which a failure prints: `SIMULATION_SEED=… cargo test --test
//! simulation`. `SIMULATION_RUNS` sets how many random seeds are tried beside the fixed ones.

mod census;
mod engine;
mod sabotage;
mod time;
mod weather;
mod world;

use std::hash::{BuildHasher, Hasher, RandomState};

use census::Census;
use sabotage::Sabotage;
use world::World;

/// Seeds that are always tried.
const FIXED: [u64; 4] = [1, 2, 3, 4];
/// Random seeds that are tried beside them.
const RANDOM_RUNS: u64 = 2;
/// What users do in one run.
const DEEDS: usize = 120;
/// Rounds of messages after the storm in which all must agree.
const ROUNDS_MAX: usize = 30;
/// Seeds of runs with something broken on purpose, and the rounds that are waited there.
const SABOTAGED: [u64; 4] = [1, 2, 3, 4];
const ROUNDS_SABOTAGED: usize = 6;

#[test]
fn servers_agree_after_every_storm() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIMULATION_SEED") {
        return run(seed);
    }
    let random = number("SIMULATION_RUNS").unwrap_or(RANDOM_RUNS);
    let drawn = (0..random).map(|_| RandomState::new().build_hasher().finish() % 1_000_000);
    FIXED.into_iter().chain(drawn).for_each(run);
}

#[test]
fn a_lost_commit_a_broken_rule_and_another_order_of_resolution_are_noticed() {
    if std::env::var_os("SIMULATION_SEED").is_some() {
        return;
    }
    let whole = outcome(SABOTAGED[0], Sabotage::None, ROUNDS_SABOTAGED);
    assert!(whole.is_ok(), "where nothing is broken, so many rounds are enough: {whole:?}");
    for sabotage in [Sabotage::LosesCommits(7), Sabotage::AuthRule, Sabotage::ResolutionOrder] {
        let noticed =
            SABOTAGED.into_iter().find_map(|seed| outcome(seed, sabotage, ROUNDS_SABOTAGED).err());
        let noticed = noticed.unwrap_or_else(|| panic!("{sabotage:?} goes unnoticed"));
        println!("{sabotage:?} is noticed: {noticed}");
    }
}

#[expect(clippy::print_stdout, reason = "a run says how it went")]
fn run(seed: u64) {
    println!("seed {seed}");
    match outcome(seed, Sabotage::None, ROUNDS_MAX) {
        Ok(census) => println!("seed {seed}: {census}"),
        Err(disagreement) => panic!("SIMULATION_SEED={seed}: {disagreement}"),
    }
}

/// What a run had, or what its servers cannot agree on.
fn outcome(seed: u64, sabotage: Sabotage, rounds_max: usize) -> Result<Census, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed, sabotage).await;
        world.storm(DEEDS).await;
        world.heal(rounds_max).await
    })
}
