//! One-time and fallback keys of a device: kept in the order of their upload, each given away once
//! (spec: One-time and fallback keys).

use std::collections::BTreeMap;

use millrace_store::{
    PartitionId, Read, Result, Scan, Tx,
    rows::keys::{FallbackKey, OneTimeKey, OneTimeKeysHead},
    tables::{ONE_TIME_KEY_IDS, ONE_TIME_KEYS, ONE_TIME_KEYS_HEAD},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use sha2::{Digest, Sha256};

use super::UploadKeysError;

/// A device has so many one-time keys at most.
pub(super) const KEYS_MAX: u64 = 1_000;
/// Bytes of the digest of a key that was given away.
const DIGEST_LEN: usize = 8;
/// So many of a device's keys that were given away are remembered.
const GIVEN_MAX: usize = 128;

/// What a sync says of a device's one-time and fallback keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// How many one-time keys are left, by algorithm.
    pub one_time: BTreeMap<String, u64>,
    /// The algorithms whose fallback key nobody has been given.
    pub unused_fallback: Vec<String>,
}

impl From<&OneTimeKeysHead> for KeyCounts {
    fn from(head: &OneTimeKeysHead) -> Self {
        let left = head.algorithms.iter().filter(|(_, range)| range.count > 0);
        let unused = head.fallback.iter().filter(|(_, fallback)| !fallback.used);
        Self {
            one_time: left.map(|(algorithm, range)| (algorithm.clone(), range.count)).collect(),
            unused_fallback: unused.map(|(algorithm, _)| algorithm.clone()).collect(),
        }
    }
}

/// How many keys a device has left.
///
/// # Errors
/// Where the store cannot be read.
pub async fn counts(read: &impl Read, user: &UserId, device: &DeviceId) -> Result<KeyCounts> {
    let head = read.get(&ONE_TIME_KEYS_HEAD, user, device).await?;
    Ok(head.as_ref().map(KeyCounts::from).unwrap_or_default())
}

/// How the partitions are named that are announced whenever [`counts`] change.
const COUNTS: &str = "one-time keys of ";

/// What is announced whenever [`counts`] change.
#[must_use]
pub fn counts_partition(user: &UserId, device: &DeviceId) -> PartitionId {
    PartitionId::of::<String>(&partition_name(user, device))
}

fn partition_name(user: &UserId, device: &DeviceId) -> String {
    format!("{COUNTS}{user} {device}")
}

/// Whose [`counts`] a partition announces; none where it is another.
#[must_use]
pub fn counts_of(partition: &str) -> Option<(OwnedUserId, OwnedDeviceId)> {
    let (user, device) = partition.strip_prefix(COUNTS)?.split_once(' ')?;
    Some((user.try_into().ok()?, device.into()))
}

/// A checked key that is to be added.
#[derive(Debug, Clone)]
pub(super) struct NewKey {
    pub algorithm: String,
    pub key: OneTimeKey,
}

/// Whose keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub user: &'a UserId,
    pub device: &'a DeviceId,
}

/// Adds keys. One that is there already, or was given away lately, is left alone; another one of the
/// same ID is refused.
pub(super) async fn add(
    tx: &Tx,
    owner: Owner<'_>,
    (one_time, fallback): (&[NewKey], &[NewKey]),
) -> Result<KeyCounts, UploadKeysError> {
    let Owner { user, device } = owner;
    let mut head = tx.get(&ONE_TIME_KEYS_HEAD, user, device).await?.unwrap_or_default();
    let before = head.clone();
    for NewKey { algorithm, key } in one_time {
        let id = (device, key.id.as_str());
        if let Some(n) = tx.get(&ONE_TIME_KEY_IDS, user, id).await? {
            let there = tx.get(&ONE_TIME_KEYS, user, (device, algorithm, n)).await?;
            if there.as_ref() == Some(key) {
                continue;
            }
            let old = there.map(|there| there.json).unwrap_or_default();
            return Err(UploadKeysError::Exists { new: key.clone(), old });
        }
        if was_given(&head, key) {
            continue;
        }
        if head.algorithms.values().map(|range| range.count).sum::<u64>() >= KEYS_MAX {
            return Err(UploadKeysError::TooMany);
        }
        let range = head.algorithms.entry(algorithm.clone()).or_default();
        range.last += 1;
        range.count += 1;
        tx.put(&ONE_TIME_KEYS, user, (device, algorithm, range.last), key);
        tx.put(&ONE_TIME_KEY_IDS, user, id, &range.last);
    }
    for NewKey { algorithm, key } in fallback {
        let there = head.fallback.get(algorithm).is_some_and(|known| known.key == *key);
        if !there {
            let new = FallbackKey { key: key.clone(), used: false };
            head.fallback.insert(algorithm.clone(), new);
        }
    }
    if head != before {
        put_head(tx, owner, &head);
    }
    Ok(KeyCounts::from(&head))
}

/// Takes the oldest one-time key of an algorithm, or shows the fallback key where there is none.
pub(super) async fn take(tx: &Tx, owner: Owner<'_>, algorithm: &str) -> Result<Option<OneTimeKey>> {
    let Owner { user, device } = owner;
    let Some(mut head) = tx.get(&ONE_TIME_KEYS_HEAD, user, device).await? else {
        return Ok(None);
    };
    if let Some(range) = head.algorithms.get_mut(algorithm).filter(|range| range.count > 0) {
        let scan = Scan::prefix((device, algorithm)).from((device, algorithm, range.first));
        let oldest = tx.scan(&ONE_TIME_KEYS, user, scan.limit(1)).await?.pop();
        if let Some(((_, _, n), key)) = oldest {
            range.first = n + 1;
            range.count -= 1;
            tx.delete(&ONE_TIME_KEYS, user, (device, algorithm, n));
            tx.delete(&ONE_TIME_KEY_IDS, user, (device, key.id.as_str()));
            remember_given(&mut head, &key);
            put_head(tx, owner, &head);
            return Ok(Some(key));
        }
    }
    let Some(fallback) = head.fallback.get_mut(algorithm) else { return Ok(None) };
    let key = fallback.key.clone();
    if !std::mem::replace(&mut fallback.used, true) {
        put_head(tx, owner, &head);
    }
    Ok(Some(key))
}

/// Deletes all keys of a device.
pub(super) async fn forget(tx: &Tx, owner: Owner<'_>) -> Result<()> {
    let Owner { user, device } = owner;
    let Some(head) = tx.get(&ONE_TIME_KEYS_HEAD, user, device).await? else { return Ok(()) };
    if head.algorithms.values().any(|range| range.count > 0) {
        let rows = tx.scan(&ONE_TIME_KEYS, user, Scan::prefix(device)).await?;
        for ((_, algorithm, n), key) in rows {
            tx.delete(&ONE_TIME_KEYS, user, (device, &algorithm, n));
            tx.delete(&ONE_TIME_KEY_IDS, user, (device, key.id.as_str()));
        }
    }
    tx.delete(&ONE_TIME_KEYS_HEAD, user, device);
    tx.touch::<String>(partition_name(user, device));
    Ok(())
}

fn put_head(tx: &Tx, Owner { user, device }: Owner<'_>, head: &OneTimeKeysHead) {
    tx.put(&ONE_TIME_KEYS_HEAD, user, device, head);
    tx.touch::<String>(partition_name(user, device));
}

fn digest(key: &OneTimeKey) -> [u8; DIGEST_LEN] {
    let hash = Sha256::new().chain_update(&key.id).chain_update([0]).chain_update(&key.json);
    let mut digest = [0; DIGEST_LEN];
    digest.copy_from_slice(&hash.finalize()[..DIGEST_LEN]);
    digest
}

fn was_given(head: &OneTimeKeysHead, key: &OneTimeKey) -> bool {
    let digest = digest(key);
    head.given.chunks(DIGEST_LEN).any(|given| given == digest)
}

fn remember_given(head: &mut OneTimeKeysHead, key: &OneTimeKey) {
    head.given.extend_from_slice(&digest(key));
    let excess = head.given.len().saturating_sub(GIVEN_MAX * DIGEST_LEN);
    head.given.drain(..excess);
}
