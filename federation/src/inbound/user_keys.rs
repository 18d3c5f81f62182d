//! Keys of users of other servers: from what is known, or from their servers, within the time that a
//! client waits (spec: Server-Server API, End-to-End Encryption).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use millrace_domain::{
    keys::{Claims, Published, with_name},
    remote_devices::{self, DeviceList},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName,
    api::federation::keys::{claim_keys::v1 as claim_keys, get_keys::v1 as get_keys},
    serde::Raw,
};

use super::{DevicesError, Inbound};
use crate::transport::ExchangeLimits;

/// So many servers are asked at once.
const SERVERS_AT_ONCE: usize = 64;
/// The lists of so many users of one server are fetched one by one, to be kept; those of more are
/// asked for at once, and fetched later.
const LISTS_AT_ONCE: usize = 8;
/// The longest that a client may let us wait.
const PATIENCE_MAX: Duration = Duration::from_mins(1);

/// Devices by user; all of a user's where none are named.
pub type Wanted = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;
/// One-time keys by user, device and key ID.
pub type OneTimeKeys = claim_keys::OneTimeKeys;

/// What other servers answered.
#[derive(Debug, Default)]
pub struct Answered<T> {
    /// Their answers together.
    pub found: T,
    /// Who did not answer, and why.
    pub failures: BTreeMap<OwnedServerName, String>,
}

impl Inbound {
    /// The keys of users of other servers.
    ///
    /// # Errors
    /// Where the store cannot be read; that a server does not answer is told in `failures`.
    pub async fn query_keys(
        &self,
        wanted: &Wanted,
        patience: Duration,
    ) -> Result<Answered<BTreeMap<OwnedUserId, Published>>, millrace_store::Error> {
        let mut answered = Answered::<BTreeMap<OwnedUserId, Published>>::default();
        let snapshot = self.env().store.snapshot();
        let mut missing: BTreeMap<&ServerName, Wanted> = BTreeMap::new();
        for (user, devices) in wanted.iter().filter(|(user, _)| !self.env().is_local(user)) {
            match remote_devices::devices(self.env(), &snapshot, user).await? {
                Some(list) => drop(answered.found.insert(user.clone(), published(list, devices))),
                None => {
                    let of_server = missing.entry(user.server_name()).or_default();
                    of_server.insert(user.clone(), devices.clone());
                }
            }
        }
        let patience = patience.min(PATIENCE_MAX);
        let answers: Vec<_> = missing
            .into_iter()
            .map(|(server, wanted)| {
                let answer = self.ask_for_keys(server, wanted);
                async move { (server, tokio::time::timeout(patience, answer).await) }.boxed()
            })
            .collect();
        let mut answers = stream::iter(answers).buffer_unordered(SERVERS_AT_ONCE);
        while let Some((server, answer)) = answers.next().await {
            let why = match answer {
                Ok(Ok(found)) => {
                    answered.found.extend(found);
                    continue;
                }
                Ok(Err(DevicesError::Store(error))) => return Err(error),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer in time".to_owned(),
            };
            answered.failures.insert(server.to_owned(), why);
        }
        Ok(answered)
    }

    /// Asks one server for keys of its users. Who is in a room with us is tracked from now on.
    async fn ask_for_keys(
        &self,
        server: &ServerName,
        mut wanted: Wanted,
    ) -> Result<BTreeMap<OwnedUserId, Published>, DevicesError> {
        let mut tracked = Vec::new();
        for user in wanted.keys() {
            if remote_devices::shares_room(self.env(), user).await? {
                tracked.push(user.clone());
            }
        }
        let mut found = BTreeMap::new();
        if tracked.len() > LISTS_AT_ONCE {
            remote_devices::mark_stale(self.env(), &tracked).await?;
            self.stale_devices.notify_one();
        } else {
            let lists: Vec<_> = tracked
                .into_iter()
                .map(|user| {
                    async move {
                        let list = self.fetch_devices(&user).await;
                        (user, list)
                    }
                    .boxed()
                })
                .collect();
            let mut lists = stream::iter(lists).buffer_unordered(LISTS_AT_ONCE);
            while let Some((user, list)) = lists.next().await {
                let devices = wanted.remove(&user).unwrap_or_default();
                found.insert(user, published(list?, &devices));
            }
        }
        if !wanted.is_empty() {
            let request = get_keys::Request::new(wanted.clone());
            let answer = self.federation.peers.ask(server, request).await?;
            found.extend(from_answer(answer, &wanted));
        }
        Ok(found)
    }

    /// Claims keys of devices of users of other servers.
    pub async fn claim_keys(&self, claims: &Claims, patience: Duration) -> Answered<OneTimeKeys> {
        let mut servers: BTreeMap<&ServerName, claim_keys::OneTimeKeyClaims> = BTreeMap::new();
        for (user, devices) in claims.iter().filter(|(user, _)| !self.env().is_local(user)) {
            let devices = devices.iter().map(|(device, algorithm)| {
                (device.clone(), OneTimeKeyAlgorithm::from(algorithm.as_str()))
            });
            servers.entry(user.server_name()).or_default().insert(user.clone(), devices.collect());
        }
        let limits = ExchangeLimits { timeout: patience.min(PATIENCE_MAX), ..Default::default() };
        let answers: Vec<_> = servers
            .into_iter()
            .map(|(server, claims)| {
                async move {
                    let asked: BTreeSet<OwnedUserId> = claims.keys().cloned().collect();
                    let request = claim_keys::Request::new(claims);
                    let answer = self.federation.peers.ask_within(server, request, limits).await;
                    (server, asked, answer)
                }
                .boxed()
            })
            .collect();
        let mut answers = stream::iter(answers).buffer_unordered(SERVERS_AT_ONCE);
        let mut answered = Answered::<OneTimeKeys>::default();
        while let Some((server, asked, answer)) = answers.next().await {
            match answer {
                Ok(answer) => {
                    let keys = answer.one_time_keys.into_iter();
                    answered.found.extend(keys.filter(|(user, keys)| {
                        asked.contains(user) && keys.values().any(|keys| !keys.is_empty())
                    }));
                }
                Err(error) => drop(answered.failures.insert(server.to_owned(), error.to_string())),
            }
        }
        answered
    }
}

/// What is shown of a list.
fn published(list: DeviceList, wanted: &[OwnedDeviceId]) -> Published {
    let devices =
        list.devices.into_iter().filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
    let devices = devices.filter_map(|(id, device)| {
        Some((id, with_name(without_unsigned(&device.keys?)?, device.name.as_deref())))
    });
    Published {
        devices: devices.collect(),
        master: list.master_key,
        self_signing: list.self_signing_key,
        user_signing: None,
    }
}

/// Device keys without what other servers added.
fn without_unsigned(keys: &str) -> Option<String> {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(keys).ok()?;
    if object.remove("unsigned").is_none() {
        return Some(keys.to_owned());
    }
    serde_json::to_string(&object).ok()
}

fn from_answer(answer: get_keys::Response, wanted: &Wanted) -> BTreeMap<OwnedUserId, Published> {
    fn text<T>(raw: Raw<T>) -> String {
        raw.into_json().get().to_owned()
    }
    let mut found: BTreeMap<OwnedUserId, Published> = BTreeMap::new();
    for (user, devices) in answer.device_keys {
        let devices = devices.into_iter().map(|(id, keys)| (id, text(keys)));
        found.entry(user).or_default().devices = devices.collect();
    }
    for (user, key) in answer.master_keys {
        found.entry(user).or_default().master = Some(text(key));
    }
    for (user, key) in answer.self_signing_keys {
        found.entry(user).or_default().self_signing = Some(text(key));
    }
    found.retain(|user, _| wanted.contains_key(user));
    found
}
