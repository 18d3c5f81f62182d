//! Rows of other servers.

use std::collections::BTreeMap;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerSigningKeyId, serde::Base64};
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// The signing keys of another server, as far as they were ever learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKeys {
    /// When they were last learnt.
    pub fetched: MilliSecondsSinceUnixEpoch,
    /// Until when what was learnt last is to be believed.
    pub valid_until: MilliSecondsSinceUnixEpoch,
    /// Each key by its ID.
    pub keys: BTreeMap<OwnedServerSigningKeyId, ServerKey>,
}

/// One key of another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKey {
    /// The public key.
    pub key: Base64,
    /// What was signed with it up to then, then included, is good.
    pub until: MilliSecondsSinceUnixEpoch,
}

/// That a server could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// How often it was tried in vain since it answered last.
    pub failures: u32,
    /// The first of these times.
    pub since: MilliSecondsSinceUnixEpoch,
    /// The last of these times.
    pub failed_at: MilliSecondsSinceUnixEpoch,
    /// When to try again.
    pub again_at: MilliSecondsSinceUnixEpoch,
}

serde_value!(Outage, ServerKeys);
