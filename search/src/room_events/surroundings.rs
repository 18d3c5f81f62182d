//! What is around a result.

use std::collections::BTreeMap;

use millrace_domain::rooms::{
    RoomView, Seen,
    context::{self, Members, Neighbours},
    history,
};
use millrace_model::{client_event::RoomIdField, filter::EventFilter};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::SearchError;

/// What is wanted around each result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// How many events before it.
    pub before: usize,
    /// How many events after it.
    pub after: usize,
    /// Whether their senders' profiles are wanted.
    pub profiles: Profiles,
}

/// Whether profiles are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profiles {
    /// They are.
    Wanted,
    /// They are not.
    Unwanted,
}

/// What is around a result.
#[derive(Debug)]
pub struct Surroundings {
    /// The point before the oldest event.
    pub start: String,
    /// The point after the newest event.
    pub end: String,
    /// The events before it, newest first.
    pub before: Vec<Box<RawValue>>,
    /// The events after it, oldest first.
    pub after: Vec<Box<RawValue>>,
    /// How the senders were called then, if that was asked for.
    pub profiles: Option<BTreeMap<OwnedUserId, Profile>>,
}

/// How somebody was called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displayname: Option<String>,
    /// The avatar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

pub(super) async fn read(
    view: &RoomView<'_>,
    event: &Seen,
    around: &Around,
) -> Result<Surroundings, SearchError> {
    let limits = (around.before, around.after);
    let Neighbours { before, after, start, end, root } =
        context::neighbours(view, event, limits, &EventFilter::default()).await?;
    let profiles = match around.profiles {
        Profiles::Unwanted => None,
        Profiles::Wanted => {
            let shown: Vec<&Seen> = before.iter().chain([event]).chain(&after).collect();
            let members = history::senders(view, root, &shown).await?;
            Some(members.iter().filter_map(profile).collect())
        }
    };
    Ok(Surroundings {
        start: start.to_string(),
        end: end.to_string(),
        before: view.render(&before, RoomIdField::Present).await?,
        after: view.render(&after, RoomIdField::Present).await?,
        profiles,
    })
}

fn profile(member: &Seen) -> Option<(OwnedUserId, Profile)> {
    let pdu = &member.event.pdu;
    let user = pdu.state_key.as_deref()?.try_into().ok()?;
    let is_redacted = member.header.redacted_by.is_some();
    let profile = if is_redacted { None } else { pdu.content_as().ok() };
    Some((user, profile.unwrap_or_default()))
}

/// The state of a room as the viewer is shown it.
pub(super) async fn state(
    view: &RoomView<'_>,
    members: Members,
) -> Result<Vec<Box<RawValue>>, SearchError> {
    let root = view.end().await?.map(|(_, root)| root);
    let state = context::state_of(view, root, members).await?;
    Ok(view.render(&state, RoomIdField::Present).await?)
}
