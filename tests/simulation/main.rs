//! Many servers on a simulated clock and network that delays, drops, duplicates and cuts, with
//! crashes between any two writes; after healing all hold the same rooms.
//!
//! A run follows from its seed, which a failure prints: `SIMULATION_SEED=… cargo test --test
//! simulation`. `SIMULATION_RUNS` sets how many random seeds are tried beside the fixed ones.

mod census;
mod engine;
mod time;
mod weather;
mod world;

use std::hash::{BuildHasher, Hasher, RandomState};

use world::World;

/// Seeds that are always tried.
const FIXED: [u64; 4] = [1, 2, 3, 4];
/// Random seeds that are tried beside them.
const RANDOM_RUNS: u64 = 2;
/// What users do in one run.
const DEEDS: usize = 120;

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

#[expect(clippy::print_stdout, reason = "a run says how it went")]
fn run(seed: u64) {
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(async {
        let mut world = World::new(seed).await;
        world.storm(DEEDS).await;
        world.heal().await
    });
    match outcome {
        Ok(census) => println!("seed {seed}: {census}"),
        Err(disagreement) => panic!("SIMULATION_SEED={seed}: {disagreement}"),
    }
}
