//! Reading a room's events: client-server API, "Getting events for a room" and "Event context".

use std::sync::Arc;

use axum::{Json, Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::{
        RoomView, Rooms, Seen, Viewer,
        context::{self, Members},
        history::{self, Gaps, HistoryError, Page, PageRequest},
        timestamp,
    },
};
use millrace_federation::inbound::{Fetched, Inbound};
use millrace_model::{
    TimelineIndex, client_event::RoomIdField, filter::EventFilter, position::FromToken,
};
use millrace_store::Snapshot;
use ruma::{
    RoomId, UInt,
    api::client::{
        context::get_context,
        filter::{LazyLoadOptions, RoomEventFilter},
        message::get_message_events,
        room::{get_event_by_timestamp, get_room_event},
    },
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{error::ApiError, extract::Matrix, requests::Messages, router::MatrixRouter};
use crate::app::{App, RoomsPart};

/// Events that one request is answered with, at most; who asks for more gets so many.
const EVENTS_MAX: usize = 1000;

/// How often a gap is filled for the sake of one request.
const ROUNDS_MAX: usize = 12;
/// After every place of a timeline.
const NEWEST: (i64, i32) = (i64::MAX, 0);

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(event).matrix(messages).matrix(context).matrix(timestamp_to_event)
}

/// What reading one room takes: a picture of the store, and who reads.
pub(super) struct Reading<'a> {
    rooms: &'a Rooms,
    pub snapshot: Snapshot,
    pub viewer: Viewer,
}

impl<'a> Reading<'a> {
    pub async fn begin(rooms: &'a Rooms, requester: &Requester) -> Result<Self, ApiError> {
        let snapshot = rooms.env.store.snapshot();
        let device = Some(&*requester.device);
        let viewer = Viewer::load(&snapshot, &requester.user, device).await;
        let viewer = viewer.map_err(ApiError::internal)?;
        Ok(Self { rooms, snapshot, viewer })
    }

    /// Opens a room that the reader may read something of.
    pub async fn open<'r>(&'r self, room: &'r RoomId) -> Result<RoomView<'r>, HistoryError> {
        history::open(self.rooms, &self.snapshot, room, &self.viewer).await
    }
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
#[tracing::instrument(name = "client.event.read", skip_all, fields(room = %request.room_id))]
async fn event(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    requester: Requester,
    Matrix(request): Matrix<get_room_event::v3::Request>,
) -> Result<Matrix<get_room_event::v3::Response>, ApiError> {
    let place = (&*request.room_id, &*request.event_id);
    let reading = Reading::begin(&rooms, &requester).await?;
    let read = history::event(&rooms, &reading.snapshot, place, &reading.viewer).await;
    let event = match read {
        Err(HistoryError::UnknownEvent(_))
            if reading.open(place.0).await.is_ok()
                && inbound.fill_up_to(place.0, NEWEST, place.1).await =>
        {
            let reading = Reading::begin(&rooms, &requester).await?;
            history::event(&rooms, &reading.snapshot, place, &reading.viewer).await?
        }
        read => read?,
    };
    Ok(Matrix(get_room_event::v3::Response::new(Raw::from_json(event))))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
#[tracing::instrument(name = "client.messages.list", skip_all, fields(room = %request.room_id))]
async fn messages(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    requester: Requester,
    Matrix(Messages { request, relations }): Matrix<Messages>,
) -> Result<Matrix<get_message_events::v3::Response>, ApiError> {
    let (mut gaps, mut round) = (Gaps::StopAt, 0);
    let filter = EventFilter::room(&request.filter).with_relations(relations);
    loop {
        let reading = Reading::begin(&rooms, &requester).await?;
        let view = reading.open(&request.room_id).await?;
        let wanted = PageRequest {
            from: point(&view, request.from.as_deref(), "from").await?,
            to: point(&view, request.to.as_deref(), "to").await?,
            direction: request.dir,
            limit: limit(Some(request.limit), EVENTS_MAX),
            filter: &filter,
            gaps,
        };
        let page = history::page(&view, &wanted).await?;
        if let Some(gap) = &page.gap {
            let place = (gap.n, gap.filled_to);
            round += 1;
            if round <= ROUNDS_MAX && inbound.fill_gap(&request.room_id, place).await {
                continue;
            }
            if page.events.is_empty() {
                // Nobody has it. What lies beyond is better than nothing.
                gaps = Gaps::Pass;
                continue;
            }
        }
        return Ok(Matrix(page_response(&view, page, &request.filter).await?));
    }
}

async fn page_response(
    view: &RoomView<'_>,
    page: Page,
    filter: &RoomEventFilter,
) -> Result<get_message_events::v3::Response, ApiError> {
    let mut response = get_message_events::v3::Response::new();
    response.chunk = render(view, &page.events).await?;
    response.start = page.start.to_string();
    response.end = page.end.map(|end| end.to_string());
    if loads_lazily(filter) {
        let shown: Vec<&Seen> = page.events.iter().collect();
        let members =
            history::senders(view, page.newest, &shown).await.map_err(HistoryError::Read)?;
        response.state = render(view, &members).await?;
    }
    Ok(response)
}

/// The answer of `/context`. Unlike ruma's it always has its arrays, which clients rely on.
#[derive(Serialize)]
struct ContextBody {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    event: Box<RawValue>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
#[tracing::instrument(name = "client.context.read", skip_all, fields(room = %request.room_id))]
async fn context(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    requester: Requester,
    Matrix(request): Matrix<get_context::v3::Request>,
) -> Result<Json<ContextBody>, ApiError> {
    let mut reading = Reading::begin(&rooms, &requester).await?;
    // Whether there is such a room is not told either.
    let unknown = |error| match error {
        HistoryError::Forbidden { .. } => HistoryError::UnknownEvent(request.event_id.clone()),
        other => other,
    };
    let view = reading.open(&request.room_id).await.map_err(unknown)?;
    let is_known = view.find(&request.event_id).await.map_err(HistoryError::Read)?.is_some();
    drop(view);
    if !is_known && inbound.fill_up_to(&request.room_id, NEWEST, &request.event_id).await {
        reading = Reading::begin(&rooms, &requester).await?;
    }
    let view = reading.open(&request.room_id).await.map_err(unknown)?;
    let filter = EventFilter::room(&request.filter);
    let members = if loads_lazily(&request.filter) { Members::Senders } else { Members::All };
    let limit = limit(Some(request.limit), EVENTS_MAX);
    let context = context::context(&view, &request.event_id, limit, &filter, members).await?;
    let rendered = async |seen: &[Seen]| view.render(seen, RoomIdField::Present).await;
    Ok(Json(ContextBody {
        start: context.start.to_string(),
        end: context.end.to_string(),
        events_before: rendered(&context.before).await.map_err(HistoryError::Read)?,
        event: view
            .render_one(&context.event, RoomIdField::Present)
            .await
            .map_err(HistoryError::Read)?,
        events_after: rendered(&context.after).await.map_err(HistoryError::Read)?,
        state: rendered(&context.state).await.map_err(HistoryError::Read)?,
    }))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
#[tracing::instrument(name = "client.event.by_time", skip_all, fields(room = %request.room_id))]
async fn timestamp_to_event(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    requester: Requester,
    Matrix(request): Matrix<get_event_by_timestamp::v1::Request>,
) -> Result<Matrix<get_event_by_timestamp::v1::Response>, ApiError> {
    let reading = Reading::begin(&rooms, &requester).await?;
    let view = reading.open(&request.room_id).await?;
    let found = timestamp::closest(&view, request.ts, request.dir).await;
    let at = found.as_ref().ok().map(|found| found.event.pdu.origin_server_ts);
    let closer = inbound.fetch_closer(&request.room_id, (request.ts, request.dir), at).await;
    let (reading, found) = match closer {
        Fetched::Yes => (Reading::begin(&rooms, &requester).await?, None),
        Fetched::No => (reading, Some(found)),
    };
    let view = reading.open(&request.room_id).await?;
    let found = match found {
        Some(found) => found?,
        None => timestamp::closest(&view, request.ts, request.dir).await?,
    };
    let pdu = &found.event.pdu;
    let (event, at) = (pdu.event_id.clone(), pdu.origin_server_ts);
    Ok(Matrix(get_event_by_timestamp::v1::Response::new(event, at)))
}

/// The point that a token stands for; an absent and an empty token are none.
pub(super) async fn point(
    view: &RoomView<'_>,
    token: Option<&str>,
    name: &str,
) -> Result<Option<TimelineIndex>, ApiError> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
    let token: FromToken =
        token.parse().map_err(|error| ApiError::invalid_param(format_args!("{name}: {error}")))?;
    let point = history::point(view, &token).await.map_err(HistoryError::Read)?;
    Ok(Some(point))
}

/// How many results are given.
pub(super) fn limit(asked: Option<UInt>, most: usize) -> usize {
    asked.and_then(|asked| usize::try_from(u64::from(asked)).ok()).unwrap_or(most).min(most)
}

pub(super) async fn render<T>(
    view: &RoomView<'_>,
    seen: &[Seen],
) -> Result<Vec<Raw<T>>, HistoryError> {
    let rendered = view.render(seen, RoomIdField::Present).await?;
    Ok(rendered.into_iter().map(Raw::from_json).collect())
}

fn loads_lazily(filter: &RoomEventFilter) -> bool {
    matches!(filter.lazy_load_options, LazyLoadOptions::Enabled { .. })
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Forbidden { .. } => Self::forbidden(error),
            HistoryError::UnknownEvent(_) | HistoryError::NoEvent => Self::not_found(error),
            HistoryError::Read(_) => Self::internal(error),
        }
    }
}
