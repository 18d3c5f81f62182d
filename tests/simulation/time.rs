//! Simulated time: the runtime's timers and the servers' clock go forward together, so fast that
//! an hour of waiting is seconds, and never while there is work to do.

use std::time::Duration;

use millrace_test_support::TestClock;

/// One step of simulated time.
const STEP: Duration = Duration::from_millis(20);
/// How often other tasks get their turn between two steps.
const TURNS: usize = 40;

/// Moves time on until the run ends. It never waits itself, so that the runtime is never idle and
/// does not skip ahead while a store's threads work.
pub async fn pass(clock: TestClock) {
    loop {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        std::thread::sleep(Duration::from_micros(100));
        tokio::time::advance(STEP).await;
        clock.advance(STEP);
    }
}
