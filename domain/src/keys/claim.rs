//! Giving away one-time keys (spec: `POST /keys/claim`).

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use millrace_store::{Result, Tx, rows::keys::OneTimeKey};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::one_time::{Owner, take};
use crate::Env;

/// Of so many users keys are taken at once.
const USERS_AT_ONCE: usize = 64;

/// Which algorithm is wanted of which device.
pub type Claims = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, String>>;
/// The keys that were had; devices without any are left out.
pub type Claimed = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKey>>;

/// Takes a key of each device of users of ours: a one-time key where there is one, which nobody else
/// is ever given, or the fallback key.
///
/// # Errors
/// Where the store fails; keys that were taken before are lost, as if the answer was.
pub async fn claim(env: &Env, claims: &Claims) -> Result<Claimed> {
    let local = claims.iter().filter(|(user, _)| env.is_local(user));
    // Made before they run: the compiler cannot see that a closure's futures can be sent.
    let taken: Vec<_> = local
        .map(|(user, devices)| {
            async move {
                let keys = claim_of(env, user, devices).await?;
                Ok::<_, millrace_store::Error>((user.clone(), keys))
            }
            .boxed()
        })
        .collect();
    let taken = stream::iter(taken).buffer_unordered(USERS_AT_ONCE);
    let claimed: Claimed = taken.try_collect().await?;
    Ok(claimed.into_iter().filter(|(_, keys)| !keys.is_empty()).collect())
}

async fn claim_of(
    env: &Env,
    user: &UserId,
    devices: &BTreeMap<OwnedDeviceId, String>,
) -> Result<BTreeMap<OwnedDeviceId, OneTimeKey>> {
    let write = |tx: Tx| {
        async move {
            let mut keys = BTreeMap::new();
            for (device, algorithm) in devices {
                let key = take(&tx, Owner { user, device }, algorithm).await?;
                keys.extend(key.map(|key| (device.clone(), key)));
            }
            Ok(keys)
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}
