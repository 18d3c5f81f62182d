//! Where and when devices were last seen: noted in memory, written in batches.

use std::{net::IpAddr, time::Duration};

use futures::future::FutureExt;
use millrace_store::{
    Read, Result, Tx,
    rows::account::{DeviceSeen, TokenHash},
    tables::DEVICES_SEEN,
};
use parking_lot::Mutex;
use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, UserId};
use rustc_hash::FxHashMap;

use super::{Accounts, Requester};

/// At most one write in this time, for all devices together.
const PAUSE: Duration = Duration::from_mins(5);
/// Devices of one write. Beyond, it is time to write, however short the pause was.
const BATCH_MAX: usize = 2000;
/// So much of a client's introduction is kept.
const AGENT_CHARS_MAX: usize = 256;

/// What has been seen since the last write. What is here when the process dies is lost: it tells
/// people where they are logged in, and is not worth a write for each request.
#[derive(Debug)]
pub struct LastSeen(Mutex<State>);

#[derive(Debug)]
struct State {
    written_ms: u64,
    seen: FxHashMap<TokenHash, Sighting>,
}

#[derive(Debug, Clone)]
struct Sighting {
    user: OwnedUserId,
    device: OwnedDeviceId,
    at_ms: u64,
    ip: IpAddr,
    user_agent: Option<String>,
}

/// From where a request came.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The address.
    pub ip: IpAddr,
    /// As what the client introduced itself.
    pub user_agent: Option<&'a str>,
}

impl Origin<'_> {
    fn agent(&self) -> Option<String> {
        let agent = self.user_agent?;
        Some(agent.chars().take(AGENT_CHARS_MAX).collect())
    }
}

/// What is due to be written.
#[derive(Debug)]
pub struct Batch(Vec<Sighting>);

impl LastSeen {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(now: MilliSecondsSinceUnixEpoch) -> Self {
        let state = State { written_ms: now.get().into(), seen: FxHashMap::default() };
        Self(Mutex::new(state))
    }

    /// Notes a request. Now and then it returns what is to be given to [`LastSeen::write`].
    #[must_use]
    pub fn note(
        &self,
        requester: &Requester,
        origin: Origin<'_>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Option<Batch> {
        let at_ms = now.get().into();
        let mut state = self.0.lock();
        if let Some(sighting) = state.seen.get_mut(&requester.token) {
            (sighting.at_ms, sighting.ip) = (at_ms, origin.ip);
            if sighting.user_agent.as_deref() != origin.user_agent {
                sighting.user_agent = origin.agent();
            }
        } else {
            let (user, device) = (requester.user.clone(), requester.device.clone());
            let (ip, user_agent) = (origin.ip, origin.agent());
            state.seen.insert(requester.token, Sighting { user, device, at_ms, ip, user_agent });
        }
        let pause_ms = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        let due = at_ms.saturating_sub(state.written_ms) >= pause_ms;
        (due || state.seen.len() >= BATCH_MAX).then(|| {
            state.written_ms = at_ms;
            Batch(std::mem::take(&mut state.seen).into_values().collect())
        })
    }

    /// Everything not written yet, for the end of the process.
    #[must_use]
    pub fn rest(&self) -> Batch {
        Batch(std::mem::take(&mut self.0.lock().seen).into_values().collect())
    }

    /// Writes what was seen, of devices that still exist.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn write(accounts: &Accounts, batch: &Batch) -> Result<()> {
        let store = &accounts.env.store;
        store
            .transact(|tx: Tx| {
                async move {
                    for sighting @ Sighting { user, device, .. } in &batch.0 {
                        let known = tx.get(&millrace_store::tables::DEVICES, user, device).await?;
                        if known.is_some() {
                            tx.put(&DEVICES_SEEN, user, device, &sighting.seen());
                        }
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// What is known of a device only here.
    pub(super) fn find(&self, user: &UserId, device: &DeviceId) -> Option<DeviceSeen> {
        let state = self.0.lock();
        let of_device = |s: &&Sighting| s.user == user && s.device == device;
        let newest = state.seen.values().filter(of_device).max_by_key(|s| s.at_ms)?;
        Some(newest.seen())
    }
}

impl Sighting {
    fn seen(&self) -> DeviceSeen {
        let (ip, user_agent) = (self.ip.to_string(), self.user_agent.clone());
        DeviceSeen { at_ms: self.at_ms, ip, user_agent }
    }
}
