//! How many one-time and fallback keys the device has left (spec: Extensions to /sync). Told in each
//! response; it costs a look-up in memory until the keys change.

use std::sync::Arc;

use serde_json::json;

use super::{Step, SyncError};
use crate::{json::Object, keys};

/// Both fields as JSON texts.
pub(super) struct Told {
    counts: String,
    unused: String,
}

/// Adds the counts.
pub(super) async fn put(step: &Step<'_>, body: &mut Object<'_>) -> Result<(), SyncError> {
    let Some(device) = &step.request.device else { return Ok(()) };
    let (store, user) = (&step.syncs.rooms.env.store, &step.request.user);
    let partition = keys::counts_partition(user, device);
    let remembered = &step.syncs.key_counts;
    let told = match remembered.get(store, &step.snapshot, partition) {
        Some(told) => told,
        None => {
            let counts = keys::counts(&step.snapshot, user, device).await?;
            let told = Arc::new(Told {
                counts: json!(counts.one_time).to_string(),
                unused: json!(counts.unused_fallback).to_string(),
            });
            remembered.put(&step.snapshot, partition, Arc::clone(&told));
            told
        }
    };
    body.field("device_one_time_keys_count").push_str(&told.counts);
    body.field("device_unused_fallback_key_types").push_str(&told.unused);
    Ok(())
}
