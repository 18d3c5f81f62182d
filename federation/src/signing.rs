//! Signatures of requests (spec: Server-Server API, Request Authentication).

use http::{HeaderValue, Request, header};
use millrace_domain::Identity;
use ruma::{
    OwnedServerSigningKeyId, ServerName,
    api::federation::authentication::XMatrix,
    serde::Base64,
    signatures::{KeyPair, PublicKeyMap},
};

/// Why a request could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The body is not canonical JSON.
    #[error("the request's body cannot be signed: {0}")]
    Body(#[from] serde_json::Error),
    /// Our key has an ID that no header can carry.
    #[error("the signing key has an unusable ID")]
    KeyId,
}

/// Why a request's signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum UnverifiedRequest {
    /// It is meant for another server.
    #[error("the request is meant for another server")]
    Destination,
    /// The signature is wrong, or of a key that the origin does not have.
    #[error("the request's signature does not hold: {0}")]
    Signature(String),
}

/// Adds the `Authorization` header that says `request` is ours and meant for `destination`.
///
/// # Errors
/// Where the body is not JSON that can be signed.
pub fn sign<B: AsRef<[u8]>>(
    request: &mut Request<B>,
    identity: &Identity,
    destination: &ServerName,
) -> Result<(), SignError> {
    let object = XMatrix::request_object(request, &identity.name, destination)?;
    let (key, signature) = identity.key.sign(&serde_json::to_vec(&object)?).into_parts();
    let key = OwnedServerSigningKeyId::try_from(key.as_str()).map_err(|_| SignError::KeyId)?;
    let (origin, destination) = (identity.name.clone(), destination.to_owned());
    let header = XMatrix::new(origin, destination, key, Base64::new(signature));
    request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from(&header));
    Ok(())
}

/// Checks the signature of a request that came to `us`. `keys` holds the keys of its origin.
///
/// # Errors
/// Where it does not hold.
pub fn verify<B: AsRef<[u8]>>(
    request: &Request<B>,
    header: &XMatrix,
    us: &ServerName,
    keys: &PublicKeyMap,
) -> Result<(), UnverifiedRequest> {
    if header.destination.as_deref().is_some_and(|destination| destination != us) {
        return Err(UnverifiedRequest::Destination);
    }
    header
        .verify_http_request(request, us, keys)
        .map_err(|error| UnverifiedRequest::Signature(error.to_string()))
}
