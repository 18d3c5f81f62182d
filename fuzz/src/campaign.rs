//! Trying inputs until the time is up or something is found.

use std::{
    fmt, fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{mutate::mutate, random::Random, targets::Target};

/// Inputs to go on from, at most.
const KEPT_MAX: usize = 512;
/// Largest input.
const BYTES_MAX: usize = 256 * 1024;
/// No input of [`BYTES_MAX`] may take longer, with debug assertions and on a busy machine. What is
/// quadratic in it takes minutes.
const TIME_MAX: Duration = Duration::from_secs(2);

/// A run of one target.
pub struct Campaign {
    pub target: &'static Target,
    pub seed: u64,
    pub budget: Duration,
    /// Where to leave each input before it is tried.
    pub trace: Option<PathBuf>,
}

/// What is wrong with an input.
pub struct Found {
    what: String,
    input: PathBuf,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, see {}", self.what, self.input.display())
    }
}

impl Campaign {
    /// Tries inputs; how many they were.
    pub fn run(&self) -> Result<u64, Found> {
        panic::set_hook(Box::new(|_| {}));
        let until = Instant::now() + self.budget;
        let mut kept: Vec<Vec<u8>> = (self.target.samples)();
        for sample in &kept {
            if !self.check(sample)? {
                return Err(self.found("refuses a sample of its own".to_owned(), sample));
            }
        }
        for known in known(self.target.name) {
            self.check(&known)?;
        }
        let mut random = Random::new(self.seed);
        let mut tried = 0;
        while Instant::now() < until {
            let mut input = random.pick(&kept).clone();
            for _ in 0..=random.below(4) {
                mutate(&mut input, &kept, &mut random);
            }
            input.truncate(BYTES_MAX);
            tried += 1;
            // What is accepted in spite of its mutations leads further.
            if self.check(&input)? && input.len() < BYTES_MAX / 16 {
                let at = random.below(KEPT_MAX);
                match kept.get_mut(at) {
                    Some(old) => *old = input,
                    None => kept.push(input),
                }
            }
        }
        Ok(tried)
    }

    /// Whether the target accepts an input.
    fn check(&self, input: &[u8]) -> Result<bool, Found> {
        if let Some(trace) = &self.trace {
            leave(trace, input);
        }
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            let accepted = panic::catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
            fastest = fastest.min(start.elapsed());
            match accepted {
                Ok(accepted) if fastest < TIME_MAX => return Ok(accepted),
                Ok(_) => {}
                Err(panic) => {
                    return Err(self.found(format!("panics: {}", message(&*panic)), input));
                }
            }
        }
        Err(self.found(format!("takes {fastest:?} for {} bytes", input.len()), input))
    }

    fn found(&self, what: String, input: &[u8]) -> Found {
        let path = found_folder().join(format!("{}-{:x}", self.target.name, self.seed));
        leave(&path, input);
        Found { what, input: path }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

fn leave(path: &Path, input: &[u8]) {
    let written = fs::create_dir_all(found_folder()).and_then(|()| fs::write(path, input));
    written.expect("findings can be written");
}

/// Where findings are left.
pub fn found_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fuzz"))
}

/// What was found before and is mended.
fn known(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/found")).join(target);
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read(file.path()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(target: &'static Target) -> Campaign {
        Campaign { target, seed: 1, budget: Duration::from_secs(60), trace: None }
    }

    fn samples() -> Vec<Vec<u8>> {
        vec![br#"{"a":["b",{"c":1}]}"#.to_vec()]
    }

    fn hates_depth(input: &[u8]) -> bool {
        assert!(!input.windows(3).any(|bytes| bytes == b"[[["), "three brackets");
        true
    }

    #[test]
    fn a_parser_that_panics_is_found_out() {
        static TARGET: Target = Target { name: "test_panics", samples, run: hates_depth };
        let found = campaign(&TARGET).run().map_err(|found| found.what);
        assert_eq!(found, Err("panics: three brackets".to_owned()));
    }

    #[test]
    fn a_target_that_refuses_its_samples_is_found_out() {
        static TARGET: Target = Target { name: "test_refuses", samples, run: |_| false };
        let found = campaign(&TARGET).run().map_err(|found| found.what);
        assert_eq!(found, Err("refuses a sample of its own".to_owned()));
    }
}
