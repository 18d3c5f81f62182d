//! Hashing and checking passwords with argon2id, away from the async threads.

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use tokio::sync::Semaphore;

use crate::Env;

/// A password has at most so many bytes: hashing cost grows with them.
pub(super) const PASSWORD_BYTES_MAX: usize = 512;
const SALT_LEN: usize = 16;
const OUTPUT_LEN: usize = 32;
/// From this size on, glibc's allocator never keeps what is freed.
const MAPPED_BYTES_MIN: usize = 33 << 20;

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
        let hash = self.in_turn(move || new_hash(cost, &password, &salt)).await?;
        hash.map_err(|error| HashError::Computation(error.to_string()))
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
                if let Some(hash) = hash {
                    fits(&hash, &password).unwrap_or(false)
                } else {
                    std::hint::black_box(new_hash(cost, &password, &[0; SALT_LEN]).is_ok());
                    false
                }
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

type ComputationResult<T> = Result<T, argon2::password_hash::Error>;

/// The PHC string of a password.
fn new_hash(cost: PasswordCost, password: &str, salt: &[u8]) -> ComputationResult<String> {
    let PasswordCost { memory_kib, iterations, parallelism } = cost;
    let params = Params::new(memory_kib, iterations, parallelism, Some(OUTPUT_LEN))?;
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params)?,
        salt: Some(Salt::new(salt)?),
        hash: Some(compute(params, password, salt, OUTPUT_LEN)?),
    };
    Ok(hash.to_string())
}

/// Whether a password is the one of a PHC string, at the cost that the string says.
fn fits(hash: &str, password: &str) -> ComputationResult<bool> {
    let hash = PasswordHash::new(hash)?;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
    if hash.algorithm != ARGON2ID_IDENT || hash.version != Some(Version::V0x13.into()) {
        return Ok(false);
    }
    let computed = compute(Params::try_from(&hash)?, password, salt, expected.len())?;
    Ok(computed == *expected) // in constant time, says `Output`
}

/// argon2id itself, in memory that goes back to the system at once.
///
/// Allocators keep what they are given back, and each thread of the pool may come to hold some
/// tens of MiB. An allocation of [`MAPPED_BYTES_MIN`] is a mapping of its own, of which only the
/// touched part costs anything.
fn compute(
    params: Params,
    password: &str,
    salt: &[u8],
    output_len: usize,
) -> ComputationResult<Output> {
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::with_capacity(blocks.max(MAPPED_BYTES_MIN / Block::SIZE));
    memory.resize(blocks, Block::default());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..output_len).unwrap_or_default();
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, &mut memory[..])?;
    Output::new(output).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test vector of the reference implementation (phc-winner-argon2, `test.c`).
    const REFERENCE: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$\
                             CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn a_hash_of_the_reference_implementation_fits() {
        assert!(fits(REFERENCE, "password").unwrap());
        assert!(!fits(REFERENCE, "Password").unwrap());
    }

    #[test]
    fn a_hash_of_another_algorithm_fits_nothing() {
        assert!(!fits(&REFERENCE.replace("argon2id", "argon2i"), "password").unwrap());
        assert!(fits("no hash", "password").is_err());
    }

    #[test]
    fn a_new_hash_fits_its_password_and_depends_on_the_salt() {
        let cost = PasswordCost { memory_kib: 16, iterations: 1, parallelism: 2 };
        let hash = |salt: u8| new_hash(cost, "übers3kr1t", &[salt; SALT_LEN]).unwrap();
        assert!(fits(&hash(1), "übers3kr1t").unwrap());
        assert!(!fits(&hash(1), "ubers3kr1t").unwrap());
        assert_ne!(hash(1), hash(2));
        assert!(Passwords::new(cost, 1).is_current(&hash(1)));
        assert!(!Passwords::new(cost, 1).is_current(REFERENCE));
    }
}
