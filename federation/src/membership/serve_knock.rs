//! Knocks of other servers' users, by our help (spec: Server-Server API, Knocking upon a room).

use std::sync::Arc;

use millrace_domain::rooms::{Event, ReadError, shown, template::Intent};

use super::submit::{self, Submission, SubmitError};
use crate::Federation;

/// Takes a knock into its room. Returns what the user is shown of the room.
///
/// # Errors
/// As [`submit::submit`].
pub async fn send_knock(
    federation: &Federation,
    submission: &Submission<'_>,
) -> Result<Vec<Arc<Event>>, SubmitError> {
    submit::submit(federation, submission, Intent::Knock).await?;
    let read = federation.env.store.snapshot();
    let shown = shown::shown_state(&federation.rooms, &read, submission.room, None).await;
    Ok(shown.map_err(ReadError::from)?)
}
