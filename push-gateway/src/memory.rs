//! What the gateway remembers between calls: which notifications a device has, and which keys turned
//! out to be dead after their call was answered. Bounded, and lost with the process.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
};

use lru::LruCache;
use parking_lot::Mutex;

use crate::notification::Device;

/// How many notifications are remembered, so that a call that is made again sends none twice.
const DELIVERED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("more than none");
/// How many dead keys wait for a call that names them.
const REJECTED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("more than none");

/// See the module.
pub struct Memory {
    hasher: RandomState,
    delivered: Mutex<LruCache<u64, ()>>,
    rejected: Mutex<LruCache<u64, ()>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            delivered: Mutex::new(LruCache::new(DELIVERED_MAX)),
            rejected: Mutex::new(LruCache::new(REJECTED_MAX)),
        }
    }
}

impl Memory {
    /// Whether a device has this event already.
    pub fn has(&self, device: &Device, event: &str) -> bool {
        let key = self.hasher.hash_one((&device.app_id, &device.pushkey, event));
        self.delivered.lock().get(&key).is_some()
    }

    /// A device has this event now.
    pub fn delivered(&self, device: &Device, event: &str) {
        let key = self.hasher.hash_one((&device.app_id, &device.pushkey, event));
        self.delivered.lock().put(key, ());
    }

    /// Whether a key was rejected after its call had been answered. True once: the call that asks
    /// reports it.
    pub fn take_rejected(&self, device: &Device) -> bool {
        let key = self.hasher.hash_one((&device.app_id, &device.pushkey));
        self.rejected.lock().pop(&key).is_some()
    }

    /// A key was rejected after its call had been answered.
    pub fn rejected(&self, device: &Device) {
        let key = self.hasher.hash_one((&device.app_id, &device.pushkey));
        self.rejected.lock().put(key, ());
    }
}
