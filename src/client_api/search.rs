//! Searching what was said: client-server API, "Server Side Search".

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{Json, Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::{Viewer, context::Members},
};
use millrace_model::filter::EventFilter;
use millrace_search::{
    Search,
    index::Order,
    room_events::{
        Around, Found, Group, GroupKey, Profile, Profiles, RESULTS_MAX, Request, Results,
        SearchError, StateWanted,
    },
};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, UInt,
    api::client::{
        filter::LazyLoadOptions,
        search::search_events::{
            self,
            v3::{Criteria, EventContext, GroupingKey, OrderBy, SearchKeys},
        },
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    error::ApiError, extract::Matrix, limits::EndpointClass, requests::WithBody,
    router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

/// Results of a page for which no number is asked.
const RESULTS_DEFAULT: usize = 10;
/// The most events before a result, and as many after it.
const AROUND_MAX: usize = 50;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(search)
}

/// `POST /_matrix/client/v3/search`
#[tracing::instrument(name = "client.search", skip_all)]
async fn search(
    State(search): State<Arc<Search>>,
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(WithBody { request, body }): Matrix<WithBody<search_events::v3::Request>>,
) -> Result<Json<Body>, ApiError> {
    limits.check(EndpointClass::Search, &requester.user)?;
    let Some(criteria) = request.search_categories.room_events else {
        return Ok(Json(Body::default()));
    };
    let asked = Asked { next_batch: request.next_batch, around: wants_context(&body) };
    let request = self::request(criteria, asked)?;
    let snapshot = rooms.env.store.snapshot();
    let viewer = Viewer::load(&snapshot, &requester.user, Some(&requester.device)).await;
    let viewer = viewer.map_err(ApiError::internal)?;
    let results = search.room_events(&viewer, &request).await?;
    Ok(Json(Body { search_categories: Categories { room_events: Some(results.into()) } }))
}

/// What is asked for beside the criteria.
struct Asked {
    next_batch: Option<String>,
    /// Whether `event_context` is there: its defaults count only where it is.
    around: bool,
}

fn wants_context(body: &ruma::CanonicalJsonObject) -> bool {
    let at = |json: Option<&ruma::CanonicalJsonValue>, key: &str| {
        json.and_then(|json| json.as_object()).and_then(|object| object.get(key)).cloned()
    };
    let categories = body.get("search_categories");
    let criteria = at(categories, "room_events");
    at(criteria.as_ref(), "event_context").is_some_and(|context| context.as_object().is_some())
}

fn request(criteria: Criteria, asked: Asked) -> Result<Request, ApiError> {
    let Criteria { search_term, keys, filter, order_by, event_context, include_state, .. } =
        criteria;
    let limit = filter.limit.map_or(RESULTS_DEFAULT, number).min(RESULTS_MAX);
    let members = match filter.lazy_load_options {
        LazyLoadOptions::Disabled => Members::All,
        LazyLoadOptions::Enabled { .. } => Members::Senders,
    };
    let next_batch = asked.next_batch.as_deref().map(str::parse).transpose();
    // Rooms are looked for with those that they took the place of.
    let mut filter_without_rooms = filter.clone();
    let rooms = filter_without_rooms.rooms.take();
    Ok(Request {
        term: search_term,
        kinds: kinds(keys.as_deref())?,
        rooms,
        senders: filter.senders,
        filter: EventFilter::room(&filter_without_rooms),
        limit,
        order: match order_by {
            None | Some(OrderBy::Rank) => Order::Rank,
            Some(OrderBy::Recent) => Order::Recent,
            Some(_) => return Err(ApiError::invalid_param("order_by must be rank or recent")),
        },
        around: asked.around.then(|| around(&event_context)),
        state: match include_state {
            Some(true) => StateWanted::Of(members),
            Some(false) | None => StateWanted::None,
        },
        group_by: group_keys(&criteria.groupings.group_by)?,
        next_batch: next_batch.map_err(SearchError::Token)?,
    })
}

fn number(number: UInt) -> usize {
    usize::try_from(u64::from(number)).unwrap_or(usize::MAX)
}

fn around(context: &EventContext) -> Around {
    Around {
        before: number(context.before_limit).min(AROUND_MAX),
        after: number(context.after_limit).min(AROUND_MAX),
        profiles: if context.include_profile { Profiles::Wanted } else { Profiles::Unwanted },
    }
}

/// Types of events whose keys are to be searched.
fn kinds(keys: Option<&[SearchKeys]>) -> Result<Vec<String>, ApiError> {
    const ALL: [SearchKeys; 3] =
        [SearchKeys::ContentBody, SearchKeys::ContentName, SearchKeys::ContentTopic];
    let kind = |key: &SearchKeys| match key {
        SearchKeys::ContentBody => Ok("m.room.message".to_owned()),
        SearchKeys::ContentName => Ok("m.room.name".to_owned()),
        SearchKeys::ContentTopic => Ok("m.room.topic".to_owned()),
        other => Err(ApiError::invalid_param(format_args!("the key {other} cannot be searched"))),
    };
    keys.unwrap_or(&ALL).iter().map(kind).collect()
}

fn group_keys(groups: &[search_events::v3::Grouping]) -> Result<BTreeSet<GroupKey>, ApiError> {
    let key = |group: &search_events::v3::Grouping| match &group.key {
        Some(GroupingKey::RoomId) => Ok(GroupKey::Room),
        Some(GroupingKey::Sender) => Ok(GroupKey::Sender),
        Some(_) | None => {
            Err(ApiError::invalid_param("results are grouped by room_id or sender only"))
        }
    };
    groups.iter().map(key).collect()
}

/// The answer. Unlike ruma's it always has its arrays, which clients rely on.
#[derive(Default, Serialize)]
struct Body {
    search_categories: Categories,
}

#[derive(Default, Serialize)]
struct Categories {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<RoomEvents>,
}

#[derive(Serialize)]
struct RoomEvents {
    count: usize,
    highlights: BTreeSet<String>,
    results: Vec<ResultBody>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<&'static str, BTreeMap<String, GroupBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Serialize)]
struct ResultBody {
    rank: f32,
    result: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextBody>,
}

#[derive(Serialize)]
struct ContextBody {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_info: Option<BTreeMap<OwnedUserId, Profile>>,
}

#[derive(Serialize)]
struct GroupBody {
    order: usize,
    results: Vec<OwnedEventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

impl From<Results> for RoomEvents {
    fn from(results: Results) -> Self {
        let mut groups: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (group, found) in results.groups {
            let (key, value) = match group {
                Group::Room(room) => ("room_id", room.to_string()),
                Group::Sender(sender) => ("sender", sender.to_string()),
            };
            let next_batch = found.next_batch.map(|token| token.to_string());
            let body = GroupBody { order: found.order, results: found.results, next_batch };
            groups.entry(key).or_default().insert(value, body);
        }
        Self {
            count: results.count,
            highlights: results.highlights,
            results: results.results.into_iter().map(ResultBody::from).collect(),
            state: results.state,
            groups,
            next_batch: results.next_batch.map(|token| token.to_string()),
        }
    }
}

impl From<Found> for ResultBody {
    fn from(found: Found) -> Self {
        let context = found.surroundings.map(|around| ContextBody {
            start: around.start,
            end: around.end,
            events_before: around.before,
            events_after: around.after,
            profile_info: around.profiles,
        });
        Self { rank: found.rank, result: found.event, context }
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Term(error) => Self::invalid_param(error),
            SearchError::Token(error) => Self::invalid_param(error),
            SearchError::Index(_)
            | SearchError::Read(_)
            | SearchError::History(_)
            | SearchError::Store(_) => Self::internal(error),
        }
    }
}
