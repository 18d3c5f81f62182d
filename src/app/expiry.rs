//! Workers that take off the disk what has outlived its time.

use std::{sync::Arc, time::Duration};

use millrace_domain::{
    Env,
    rooms::{Rooms, retention},
    to_device,
};

use super::workers::run_until;
use crate::{config::Config, shutdown::Shutdown};

/// How often it is looked for messages to devices that have waited for too long, which is days.
const TO_DEVICE_EVERY: Duration = Duration::from_hours(6);

/// Begins to take off the disk what is too old.
pub(super) fn expire(config: &Config, env: &Env, rooms: &Rooms, shutdown: &Shutdown) {
    expire_messages(config, rooms, shutdown);
    expire_to_device(config, env, shutdown);
}

/// What expired messages said.
fn expire_messages(config: &Config, rooms: &Rooms, shutdown: &Shutdown) {
    if !config.retention.enabled {
        return;
    }
    let every = Duration::from_secs(config.retention.purge_interval_s);
    run_until(shutdown, Arc::new(rooms.clone()), move |rooms| async move {
        loop {
            tokio::time::sleep(every).await;
            match retention::purge_all(&rooms).await {
                Ok(count) => tracing::info!(count, "expired messages were purged"),
                Err(error) => tracing::error!(%error, "expired messages could not be purged"),
            }
        }
    });
}

/// Begins to drop messages to devices that have waited for too long: at the start too, as not every
/// process lives until the next time.
fn expire_to_device(config: &Config, env: &Env, shutdown: &Shutdown) {
    let lifetimes = config.to_device.lifetimes();
    run_until(shutdown, Arc::new(env.clone()), move |env| async move {
        loop {
            match to_device::expire(&env, lifetimes).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "messages to devices waited for too long"),
                Err(error) => tracing::error!(%error, "messages to devices cannot be expired"),
            }
            tokio::time::sleep(TO_DEVICE_EVERY).await;
        }
    });
}
