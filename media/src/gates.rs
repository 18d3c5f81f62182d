//! Locks by name, for what only one at a time should do in this process.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::OwnedMutexGuard;

/// So many names are remembered before those that nobody holds are forgotten.
const SWEEP_AT: usize = 1024;

/// One lock for each name that somebody holds or waits for.
#[derive(Default)]
pub(crate) struct Gates(Mutex<FxHashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Gates {
    /// Waits until nobody else holds the lock of `name`; it is held until the answer is dropped.
    pub(crate) async fn enter(&self, name: &str) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.0.lock();
            if let Some(gate) = gates.get(name).and_then(Weak::upgrade) {
                gate
            } else {
                if gates.len() >= SWEEP_AT {
                    gates.retain(|_, gate| gate.strong_count() > 0);
                }
                let gate = Arc::default();
                gates.insert(name.to_owned(), Arc::downgrade(&gate));
                gate
            }
        };
        gate.lock_owned().await
    }
}
