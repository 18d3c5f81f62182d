//! A room at one glance: its state and newest messages (spec: Client-Server API, `GET
//! /rooms/{roomId}/initialSync`, Room previews).

use millrace_model::{PageToken, client_event::RoomIdField, filter::EventFilter};
use millrace_store::{Read, Scan, tables::ACCOUNT_DATA};
use ruma::{RoomId, api::Direction, events::room::member::MembershipState};
use serde_json::value::RawValue;

use super::{
    ReadError, Rooms, Viewer,
    create::Listing,
    directory,
    history::{self, Gaps, HistoryError, PageRequest},
};

/// A room, as somebody may see it.
#[derive(Debug)]
pub struct RoomInfo {
    /// Their membership; none where they never had to do with it.
    pub membership: Option<MembershipState>,
    /// Before the oldest of the messages.
    pub start: PageToken,
    /// After the newest of the messages.
    pub end: PageToken,
    /// The newest messages, oldest first.
    pub messages: Vec<Box<RawValue>>,
    /// The state: as it is, or as it was when they left.
    pub state: Vec<Box<RawValue>>,
    /// Whether it is listed in the directory.
    pub listing: Listing,
    /// What they keep about it: types and contents, as JSON.
    pub account_data: Vec<(String, String)>,
}

/// What a viewer may see of a room now, with at most `limit` messages.
///
/// # Errors
/// [`HistoryError::Forbidden`] where that is nothing.
pub async fn room_info(
    rooms: &Rooms,
    viewer: &Viewer,
    room: &RoomId,
    limit: usize,
) -> Result<RoomInfo, HistoryError> {
    let snapshot = &rooms.env.store.snapshot();
    let view = history::open(rooms, snapshot, room, viewer).await?;
    let (end, root) = history::readable_end(&view).await?;
    let (direction, gaps) = (Direction::Backward, Gaps::StopAt);
    let filter = &EventFilter::default();
    let request = PageRequest { from: None, to: None, direction, limit, filter, gaps };
    let mut page = history::page(&view, &request).await?;
    page.events.reverse();
    let end = PageToken::after(end);
    let start = page.events.first().map_or(end, |oldest| PageToken::before(oldest.index()));
    let numbers = rooms.states.numbers(snapshot, room, root, None).await;
    let state = view.state_events(&numbers.map_err(ReadError::from)?).await?;
    let listing = directory::listing(rooms, room).await?.unwrap_or(Listing::Unlisted);
    let kept = snapshot.scan(&ACCOUNT_DATA, &viewer.user, Scan::prefix(room.as_str())).await?;
    Ok(RoomInfo {
        membership: view.user_room.as_ref().map(|row| row.membership.clone()),
        start,
        end,
        messages: view.render(&page.events, RoomIdField::Present).await?,
        state: view.render(&state, RoomIdField::Present).await?,
        listing,
        account_data: kept.into_iter().map(|((_, kind), content)| (kind, content)).collect(),
    })
}
