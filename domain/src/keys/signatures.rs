//! Signatures that are added to keys (spec: Cross-signing, `POST /keys/signatures/upload`).
//!
//! A user signs their own devices and master key, which everybody may see, and the master keys of
//! others, which nobody else is shown.

use std::collections::BTreeMap;

use futures::FutureExt;
use millrace_model::encryption::{
    InvalidKey, KeyObject, SigningKeyOf, cross_signing_key, device_signing_key,
};
use millrace_store::{
    Read, Tx,
    rows::keys::UserKeys,
    tables::{USER_KEYS, USER_SIGNATURES},
};
use ruma::{DeviceId, OwnedUserId, UserId};

use crate::{
    Env,
    accounts::{
        AuthenticateError, DeviceFate, Requester, confirm, devices_changed, signing_keys_changed,
    },
};

/// Signed key objects, JSON texts, by the key's owner and the key's name: a device's ID, or the
/// public key.
pub type SignedKeys = BTreeMap<OwnedUserId, BTreeMap<String, String>>;
/// Which signatures were not taken, and why.
pub type SignatureFailures = BTreeMap<OwnedUserId, BTreeMap<String, RefusedSignature>>;

/// Why a signature was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedSignature {
    /// The object or the signature is not what it should be.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// Nobody knows the key.
    #[error("no such key")]
    UnknownKey,
    /// The object is not the one that was published.
    #[error("the object differs from the key that was published")]
    Differs,
    /// The user has no key that could have made it.
    #[error("there is no key of yours that could have signed this")]
    UnknownSigner,
}

/// What a request changes.
#[derive(Default)]
struct Changes {
    devices: Vec<String>,
    master: bool,
}

/// Adds signatures by the requester; `masters` are the master keys of users of other servers. What is
/// not taken is told for each key.
///
/// # Errors
/// Where the session has ended, or the store fails.
pub async fn upload_signatures(
    env: &Env,
    requester: &Requester,
    signed: &SignedKeys,
    masters: &BTreeMap<OwnedUserId, String>,
) -> Result<SignatureFailures, AuthenticateError> {
    let user = &*requester.user;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let mut keys = tx.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
            let (mut failures, mut changes) = (SignatureFailures::new(), Changes::default());
            for (owner, objects) in signed {
                for (name, json) in objects {
                    let taken = if owner == user {
                        sign_own(user, &mut keys, (name, json), &mut changes)
                    } else {
                        let master = match masters.get(owner) {
                            Some(master) => Some(master.clone()),
                            None => tx.get(&USER_KEYS, owner, ()).await?.and_then(|k| k.master),
                        };
                        sign_other(&tx, (user, &keys), owner, master, (name, json)).await?
                    };
                    if let Err(refused) = taken {
                        failures.entry(owner.clone()).or_default().insert(name.clone(), refused);
                    }
                }
            }
            write_changes(&tx, user, &keys, &changes).await?;
            Ok(failures)
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}

async fn write_changes(
    tx: &Tx,
    user: &UserId,
    keys: &UserKeys,
    changes: &Changes,
) -> millrace_store::Result<()> {
    if !changes.devices.is_empty() || changes.master {
        tx.put(&USER_KEYS, user, (), keys);
    }
    if !changes.devices.is_empty() {
        let devices = changes.devices.iter().map(|id| <&DeviceId>::from(id.as_str()));
        devices_changed(tx, user, devices, DeviceFate::Changed).await?;
    }
    if changes.master {
        signing_keys_changed(tx, user).await?;
    }
    Ok(())
}

/// Takes a signature of the user's on a device or the master key of theirs.
fn sign_own(
    user: &UserId,
    keys: &mut UserKeys,
    (name, json): (&str, &str),
    changes: &mut Changes,
) -> Result<(), RefusedSignature> {
    let new = KeyObject::parse(json)?;
    if let Some(device) = keys.devices.get(<&DeviceId>::from(name)) {
        let signer = keys.self_signing.as_deref().and_then(signing_key);
        let known = KeyObject::parse(&device.keys)?;
        let signers = |id: &str| signer.as_ref().filter(|key| key.id == id).map(|key| key.key);
        if let Some(known) = add(user, known, &new, signers)? {
            if let Some(device) = keys.devices.get_mut(<&DeviceId>::from(name)) {
                device.keys = known.to_json();
            }
            changes.devices.push(name.to_owned());
        }
        return Ok(());
    }
    let master = keys.master.as_deref().ok_or(RefusedSignature::UnknownKey)?;
    let known = KeyObject::parse(master)?;
    if cross_signing_key(&known).is_none_or(|key| key.name() != name) {
        return Err(RefusedSignature::UnknownKey);
    }
    let by_device = |id: &str| {
        let device = <&DeviceId>::from(id.strip_prefix("ed25519:")?);
        let object = KeyObject::parse(&keys.devices.get(device)?.keys).ok()?;
        device_signing_key(&object, device)
    };
    if let Some(known) = add(user, known, &new, by_device)? {
        keys.master = Some(known.to_json());
        changes.master = true;
    }
    Ok(())
}

/// Adds to a known object the signatures of the new one that are not there yet, each by a key that
/// `signers` knows. `None` where there are none.
fn add(
    user: &UserId,
    mut known: KeyObject,
    new: &KeyObject,
    signers: impl Fn(&str) -> Option<[u8; 32]>,
) -> Result<Option<KeyObject>, RefusedSignature> {
    if !known.is_same_key(new) {
        return Err(RefusedSignature::Differs);
    }
    let old = known.signatures_of(user);
    let added: Vec<(&str, &str)> = new
        .signatures_of(user)
        .into_iter()
        .filter(|(id, text)| old.get(id) != Some(text))
        .collect();
    for (id, _) in &added {
        let key = signers(id).ok_or(RefusedSignature::UnknownSigner)?;
        new.verify(user, id, &key)?;
    }
    if added.is_empty() {
        return Ok(None);
    }
    known.add_signatures(user, added);
    Ok(Some(known))
}

/// Takes the user's signature on another user's master key.
async fn sign_other(
    tx: &Tx,
    (user, keys): (&UserId, &UserKeys),
    owner: &UserId,
    master: Option<String>,
    (name, json): (&str, &str),
) -> millrace_store::Result<Result<(), RefusedSignature>> {
    let verified = || {
        let new = KeyObject::parse(json)?;
        let master = KeyObject::parse(&master.ok_or(RefusedSignature::UnknownKey)?)?;
        if cross_signing_key(&master).is_none_or(|key| key.name() != name) {
            return Err(RefusedSignature::UnknownKey);
        }
        let signer = keys.user_signing.as_deref().and_then(signing_key);
        let signer = signer.ok_or(RefusedSignature::UnknownSigner)?;
        if !master.is_same_key(&new) {
            return Err(RefusedSignature::Differs);
        }
        new.verify(user, &signer.id, &signer.key)?;
        let signatures = new.signatures_of(user);
        Ok(BTreeMap::from([(signer.id.clone(), signatures[signer.id.as_str()].to_owned())]))
    };
    let signatures = match verified() {
        Ok(signatures) => signatures,
        Err(refused) => return Ok(Err(refused)),
    };
    let place = (owner, name);
    let text = serde_json::to_string(&signatures).expect("texts are plain JSON");
    if tx.get(&USER_SIGNATURES, user, place).await?.as_deref() != Some(&text) {
        tx.put(&USER_SIGNATURES, user, place, &text);
    }
    Ok(Ok(()))
}

fn signing_key(json: &str) -> Option<SigningKeyOf> {
    cross_signing_key(&KeyObject::parse(json).ok()?)
}
