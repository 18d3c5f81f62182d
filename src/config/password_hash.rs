//! The cost of argon2id, which makes stolen password hashes expensive to try.

use serde::{Deserialize, Serialize};

use super::Problems;

/// Parameters of argon2id for new hashes. Old hashes carry their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    /// Memory of one computation, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Default for PasswordHash {
    /// OWASP's recommendation for argon2id.
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1 }
    }
}

impl PasswordHash {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let lanes = self.parallelism;
        problems.require((1..=64).contains(&lanes), "password_hash.parallelism", "must be 1 to 64");
        let enough = self.memory_kib >= lanes.saturating_mul(8);
        problems.require(enough, "password_hash.memory_kib", "must be at least 8 per lane");
        problems.require(self.iterations >= 1, "password_hash.iterations", "must be at least 1");
    }
}
