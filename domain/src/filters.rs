//! Filters that clients store (spec: Client-Server API, Filtering).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    tables::{FILTER_COUNTS, FILTERS},
};
use ruma::{UserId, api::client::filter::FilterDefinition};
use sha2::{Digest, Sha256};

use crate::Env;

/// The largest filter, in bytes of JSON.
const FILTER_BYTES_MAX: usize = 64 << 10;
/// The most filters of one user.
const FILTERS_MAX: u64 = 10_000;

/// Why a filter was not stored or is not had.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Too large.
    #[error("a filter has at most {FILTER_BYTES_MAX} bytes")]
    TooLarge,
    /// The user has as many as there can be.
    #[error("there are {FILTERS_MAX} filters already")]
    TooMany,
    /// No such filter.
    #[error("there is no such filter")]
    Unknown,
    /// The filter has no JSON form, or what is stored is none.
    #[error("the filter is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The store failed.
    #[error("could not read or write the filter")]
    Store(#[from] millrace_store::Error),
}

/// Stores a filter and returns its ID: the same one for the same filter.
///
/// # Errors
/// As [`FilterError`] says.
pub async fn create(
    env: &Env,
    user: &UserId,
    filter: &FilterDefinition,
) -> Result<String, FilterError> {
    let json = &serde_json::to_string(filter)?;
    if json.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLarge);
    }
    // 72 bits of a hash: nobody but its user can make two filters of one ID.
    let id = &BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(json)[..9]);
    if env.store.snapshot().get(&FILTERS, user, id).await?.is_some() {
        return Ok(id.clone());
    }
    let write = |tx: Tx| {
        async move {
            if tx.get(&FILTERS, user, id).await?.is_some() {
                return Ok(());
            }
            let count = tx.get(&FILTER_COUNTS, user, ()).await?.unwrap_or(0);
            if count >= FILTERS_MAX {
                return Err(FilterError::TooMany);
            }
            tx.put(&FILTER_COUNTS, user, (), &(count + 1));
            tx.put(&FILTERS, user, id, json);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await?;
    Ok(id.clone())
}

/// A filter by its ID.
///
/// # Errors
/// [`FilterError::Unknown`] where the user has none of this ID.
pub async fn get(
    read: &impl Read,
    user: &UserId,
    id: &str,
) -> Result<FilterDefinition, FilterError> {
    let json = read.get(&FILTERS, user, id).await?.ok_or(FilterError::Unknown)?;
    Ok(serde_json::from_str(&json)?)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_filter_has_one_id_and_belongs_to_its_user() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        let json = r#"{"room":{"timeline":{"limit":10}}}"#;
        let filter = serde_json::from_str(json).unwrap();
        let id = create(&env, alice, &filter).await.unwrap();
        assert_eq!(create(&env, alice, &filter).await.unwrap(), id);
        assert!(!id.starts_with('{'));
        let stored = get(&env.store.snapshot(), alice, &id).await.unwrap();
        assert_eq!(serde_json::to_string(&stored).unwrap(), json);
        let other = get(&env.store.snapshot(), user_id!("@bob:test.example"), &id).await;
        assert!(matches!(other, Err(FilterError::Unknown)));
    }
}
