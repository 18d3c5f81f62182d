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

serde_value!(ServerKeys);
