//! Profiles of users of other servers.

use ruma::{UserId, api::federation::query::get_profile_information::v1 as get_profile};
use serde_json::{Map, Value};

use crate::{Federation, PeerError};

/// The profile of a user of another server, or one field of it.
///
/// # Errors
/// Where the server cannot be asked, or does not know the user.
pub async fn profile(
    federation: &Federation,
    user: &UserId,
    field: Option<&str>,
) -> Result<Map<String, Value>, PeerError> {
    let mut request = get_profile::Request::new(user.to_owned());
    request.field = field.map(Into::into);
    let answer = federation.peers.ask(user.server_name(), request).await?;
    Ok(answer.data.into_iter().collect())
}
