//! Hashing and checking passwords with argon2id, away from the async threads.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::Env;

/// A password has at most so many bytes: hashing cost grows with them.
pub(super) const PASSWORD_BYTES_MAX: usize = 512;
const SALT_LEN: usize = 16;

/// Parameters of argon2id for new hashes. Stored hashes carry their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory of one computation, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Default for PasswordCost {
    /// OWASP's recommendation for argon2id.
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1 }
    }
}

/// Hashes and checks passwords, a bounded number at once.
#[derive(Debug)]
pub struct Passwords {
    cost: PasswordCost,
    turns: Semaphore,
}

/// A password could not be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// It is longer than [`PASSWORD_BYTES_MAX`].
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// The configured cost cannot be computed, or the runtime is stopping.
    #[error("the password could not be hashed: {0}")]
    Computation(String),
}

impl Passwords {
    /// Hashes at the given cost, at most `at_once` passwords at the same time.
    #[must_use]
    pub fn new(cost: PasswordCost, at_once: usize) -> Self {
        Self { cost, turns: Semaphore::new(at_once.max(1)) }
    }

    /// The PHC string of a new password, with a random salt.
    ///
    /// # Errors
    /// As [`HashError`] says.
    pub async fn hash(&self, env: &Env, password: &str) -> Result<String, HashError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(HashError::TooLong);
        }
        let mut salt = [0; SALT_LEN];
        env.random.fill(&mut salt);
        let (cost, password) = (self.cost, password.to_owned());
        self.in_turn(move || {
            let hash = argon2(cost)?.hash_password_with_salt(password.as_bytes(), &salt);
            hash.map(|hash: PasswordHash| hash.to_string()).map_err(|error| error.to_string())
        })
        .await?
        .map_err(HashError::Computation)
    }

    /// Whether `password` is the one of `hash`. Without a hash the answer is no, after as long as
    /// it takes for a real one: nobody learns from the time which accounts exist.
    ///
    /// # Errors
    /// Where the runtime is stopping.
    pub async fn check(&self, password: &str, hash: Option<String>) -> Result<bool, HashError> {
        let too_long = password.len() > PASSWORD_BYTES_MAX;
        let password = if too_long { String::new() } else { password.to_owned() };
        let cost = self.cost;
        let matches = self
            .in_turn(move || {
                let Some(hash) = hash else {
                    spend(cost, &password);
                    return false;
                };
                let Ok(hash) = PasswordHash::new(&hash) else { return false };
                // The cost is the stored hash's own.
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            })
            .await?;
        Ok(matches && !too_long)
    }

    /// Whether `hash` costs what new hashes cost.
    #[must_use]
    pub fn is_current(&self, hash: &str) -> bool {
        let params = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
        let cost = |params: Params| PasswordCost {
            memory_kib: params.m_cost(),
            iterations: params.t_cost(),
            parallelism: params.p_cost(),
        };
        params.map(cost) == Some(self.cost)
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let stopped = |error: &dyn std::error::Error| HashError::Computation(error.to_string());
        let _turn = self.turns.acquire().await.map_err(|error| stopped(&error))?;
        tokio::task::spawn_blocking(work).await.map_err(|error| stopped(&error))
    }
}

fn argon2(cost: PasswordCost) -> Result<Argon2<'static>, String> {
    let PasswordCost { memory_kib, iterations, parallelism } = cost;
    let params = Params::new(memory_kib, iterations, parallelism, None);
    let params = params.map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Takes as long as a check.
fn spend(cost: PasswordCost, password: &str) {
    if let Ok(argon2) = argon2(cost) {
        let mut out = [0; 32];
        let _ = argon2.hash_password_into(password.as_bytes(), &[0; SALT_LEN], &mut out);
        std::hint::black_box(out);
    }
}
