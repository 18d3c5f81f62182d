//! How long a service is left alone that did not take a transaction.

use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The wait after so many failures in a row: twice that before, up to `most`. `share`, a random byte,
/// takes off up to a quarter, so that services that failed together do not come back together.
pub(super) fn wait(failures: u32, most: Duration, share: u8) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let whole = FIRST.saturating_mul(doubled).min(most);
    whole - whole.mul_f64(f64::from(share) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let most = Duration::from_secs(20);
        let waits: Vec<u64> = (1..=7).map(|n| wait(n, most, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20]);
        let short = wait(5, most, 255);
        assert!(Duration::from_secs(12) < short && short < Duration::from_secs(13));
        assert_eq!(wait(u32::MAX, most, 0), most);
    }
}
