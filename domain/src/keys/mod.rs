//! Keys of end-to-end encryption, as a server keeps them for clients (spec: Client-Server API,
//! End-to-End Encryption). They are public; what they protect is never here.
//!
//! A user's device keys and keys for cross-signing are one row, so that one read answers who asks
//! for them. One-time keys lie in the order of their upload, and each is given away once.

mod claim;
mod cross_signing;
mod devices;
mod one_time;
mod query;
mod signatures;
mod upload;

pub use self::{
    claim::{Claimed, Claims, claim},
    cross_signing::{
        Confirmed, NewSigningKeys, SigningKeysError, brings_new_keys, upload_signing_keys,
    },
    devices::{
        ToldDevice, UserDevices, forget_devices, forget_user, is_signing_key, rename, user_devices,
    },
    one_time::{KeyCounts, counts, counts_of, counts_partition},
    query::{Names, Published, Reader, query, with_name, with_signatures_of},
    signatures::{RefusedSignature, SignatureFailures, SignedKeys, upload_signatures},
    upload::{KeysUpload, UploadKeysError, upload},
};
pub(crate) use self::{
    one_time::Owner,
    upload::{check as check_upload, publish},
};
