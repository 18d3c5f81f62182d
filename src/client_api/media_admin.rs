//! Administration of media, as Synapse's tools do it: `/_synapse/admin/v1/…`.

use std::collections::HashSet;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use millrace_domain::rooms::media_uses::{avatars, media_named_in};
use millrace_media::{
    Media, Mxc,
    moderate::{self, Known, Old, Protection},
    remove::{Removed, remove},
};
use millrace_store::rows::media::{Content, Medium, MediumKind};
use ruma::{OwnedMxcUri, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    extract::{PathArguments, QueryArguments},
    requester::Administrator,
};
use crate::app::{App, RoomsPart};

/// Media of one answer where the request does not say.
const PAGE: usize = 100;
/// Most media of one answer.
const PAGE_MAX: usize = 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Times before this one, in 1970, are taken for seconds, as Synapse does.
const SURELY_MS: u64 = 30_000_000_000;

pub(crate) fn routes() -> Router<App> {
    let below = |path: &str| format!("/_synapse/admin/v1/{path}");
    Router::new()
        .route(&below("users/{user}/media"), get(list).delete(remove_all))
        .route(&below("media/{server}/{id}"), get(show).delete(remove_one))
        .route(&below("media/quarantine/{server}/{id}"), post(quarantine))
        .route(&below("media/unquarantine/{server}/{id}"), post(unquarantine))
        .route(&below("user/{user}/media/quarantine"), post(quarantine_all))
        .route(&below("room/{room}/media"), get(of_room))
        .route(&below("room/{room}/media/quarantine"), post(quarantine_room))
        .route(&below("media/protect/{id}"), post(protect))
        .route(&below("media/unprotect/{id}"), post(unprotect))
        .route(&below("media/delete"), post(remove_old))
        .route(&below("purge_media_cache"), post(purge))
}

/// A medium in a path.
type MediumPath = PathArguments<(OwnedServerName, String)>;

/// Which part of a list is wanted.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
}

/// `GET /_synapse/admin/v1/users/{userId}/media`: the newest first.
#[tracing::instrument(name = "synapse_admin.media.list", skip_all)]
async fn list(
    State(media): State<Media>,
    _: Administrator,
    PathArguments(user): PathArguments<OwnedUserId>,
    QueryArguments(Part { from, limit }): QueryArguments<Part>,
) -> Result<Json<Value>, ApiError> {
    let all = moderate::media_of(&media, &user).await.map_err(ApiError::internal)?;
    let (total, limit) = (all.len(), limit.unwrap_or(PAGE).min(PAGE_MAX));
    let page: Vec<Value> =
        all.iter().skip(from).take(limit).map(|(mxc, medium)| listed(mxc, medium)).collect();
    let mut answer = json!({ "media": page, "total": total });
    let next = from.saturating_add(limit);
    if next < total {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}

fn listed(mxc: &Mxc, medium: &Medium) -> Value {
    let bytes = match medium.content {
        Content::Stored { bytes, .. } => Some(bytes),
        Content::Pending { .. } => None,
    };
    json!({
        "media_id": mxc.id(),
        "media_type": medium.content_type,
        "media_length": bytes,
        "upload_name": medium.file_name,
        "created_ts": medium.created_ms,
        "last_access_ts": u64::from(medium.accessed_day) * DAY_MS,
        "quarantined_by": medium.quarantined_by,
        "safe_from_quarantine": medium.protected,
    })
}

/// `GET /_synapse/admin/v1/media/{serverName}/{mediaId}`
#[tracing::instrument(name = "synapse_admin.media.show", skip_all)]
async fn show(
    State(media): State<Media>,
    _: Administrator,
    PathArguments((server, id)): MediumPath,
) -> Result<Json<Value>, ApiError> {
    let mxc = Mxc::new(server, id)?;
    let medium = moderate::medium(&media, &mxc).await.map_err(ApiError::internal)?;
    let medium = medium.ok_or_else(unknown)?;
    let mut info = listed(&mxc, &medium);
    info["media_origin"] = mxc.server().as_str().into();
    info["user_id"] = medium.owner.as_ref().map(|owner| owner.as_str()).into();
    info["authenticated"] = medium.frozen.into();
    info["url_cache"] = (medium.kind == MediumKind::Preview).into();
    Ok(Json(json!({ "media_info": info })))
}

fn unknown() -> ApiError {
    ApiError::not_found("There is no such medium here")
}

fn known(known: Known) -> Result<Json<Value>, ApiError> {
    match known {
        Known::Yes => Ok(Json(json!({}))),
        Known::No => Err(unknown()),
    }
}

/// `POST /_synapse/admin/v1/media/quarantine/{serverName}/{mediaId}`
#[tracing::instrument(name = "synapse_admin.media.quarantine", skip_all)]
async fn quarantine(
    State(media): State<Media>,
    Administrator(admin): Administrator,
    PathArguments((server, id)): MediumPath,
) -> Result<Json<Value>, ApiError> {
    let mxc = Mxc::new(server, id)?;
    known(moderate::quarantine(&media, &mxc, Some(&admin.user)).await.map_err(ApiError::internal)?)
}

/// `POST /_synapse/admin/v1/media/unquarantine/{serverName}/{mediaId}`
#[tracing::instrument(name = "synapse_admin.media.unquarantine", skip_all)]
async fn unquarantine(
    State(media): State<Media>,
    _: Administrator,
    PathArguments((server, id)): MediumPath,
) -> Result<Json<Value>, ApiError> {
    let mxc = Mxc::new(server, id)?;
    known(moderate::quarantine(&media, &mxc, None).await.map_err(ApiError::internal)?)
}

/// `POST /_synapse/admin/v1/user/{userId}/media/quarantine`
#[tracing::instrument(name = "synapse_admin.media.quarantine_of", skip_all)]
async fn quarantine_all(
    State(media): State<Media>,
    Administrator(admin): Administrator,
    PathArguments(user): PathArguments<OwnedUserId>,
) -> Result<Json<Value>, ApiError> {
    let done = moderate::quarantine_of(&media, &user, &admin.user).await;
    Ok(Json(json!({ "num_quarantined": done.map_err(ApiError::internal)? })))
}

/// `GET /_synapse/admin/v1/room/{roomId}/media`: what the room's events name, as far as they can be read.
#[tracing::instrument(name = "synapse_admin.media.of_room", skip_all)]
async fn of_room(
    (State(media), State(rooms)): (State<Media>, State<RoomsPart>),
    _: Administrator,
    PathArguments(room): PathArguments<OwnedRoomId>,
) -> Result<Json<Value>, ApiError> {
    let named = media_named_in(&rooms, &room).await.map_err(ApiError::internal)?;
    let is_local = |uri: &OwnedMxcUri| Mxc::of_uri(uri).is_some_and(|mxc| media.is_local(&mxc));
    let (local, remote): (Vec<_>, Vec<_>) = named.into_iter().partition(is_local);
    Ok(Json(json!({ "local": local, "remote": remote })))
}

/// `POST /_synapse/admin/v1/room/{roomId}/media/quarantine`
#[tracing::instrument(name = "synapse_admin.media.quarantine_room", skip_all)]
async fn quarantine_room(
    (State(media), State(rooms)): (State<Media>, State<RoomsPart>),
    Administrator(admin): Administrator,
    PathArguments(room): PathArguments<OwnedRoomId>,
) -> Result<Json<Value>, ApiError> {
    let named = media_named_in(&rooms, &room).await.map_err(ApiError::internal)?;
    let named: Vec<Mxc> = named.iter().filter_map(|uri| Mxc::of_uri(uri)).collect();
    let done = moderate::quarantine_all(&media, named, &admin.user).await;
    Ok(Json(json!({ "num_quarantined": done.map_err(ApiError::internal)? })))
}

/// `POST /_synapse/admin/v1/media/protect/{mediaId}`
#[tracing::instrument(name = "synapse_admin.media.protect", skip_all)]
async fn protect(
    State(media): State<Media>,
    _: Administrator,
    PathArguments(id): PathArguments<String>,
) -> Result<Json<Value>, ApiError> {
    set_protection(&media, id, Protection::On).await
}

/// `POST /_synapse/admin/v1/media/unprotect/{mediaId}`
#[tracing::instrument(name = "synapse_admin.media.unprotect", skip_all)]
async fn unprotect(
    State(media): State<Media>,
    _: Administrator,
    PathArguments(id): PathArguments<String>,
) -> Result<Json<Value>, ApiError> {
    set_protection(&media, id, Protection::Off).await
}

async fn set_protection(
    media: &Media,
    id: String,
    protection: Protection,
) -> Result<Json<Value>, ApiError> {
    let mxc = Mxc::new(media.env.identity.name.clone(), id)?;
    known(moderate::protect(media, &mxc, protection).await.map_err(ApiError::internal)?)
}

/// `DELETE /_synapse/admin/v1/media/{serverName}/{mediaId}`: what was uploaded here.
#[tracing::instrument(name = "synapse_admin.media.remove", skip_all)]
async fn remove_one(
    State(media): State<Media>,
    _: Administrator,
    PathArguments((server, id)): MediumPath,
) -> Result<Json<Value>, ApiError> {
    let mxc = Mxc::new(server, id)?;
    if !media.is_local(&mxc) {
        return Err(ApiError::bad_request(
            ruma::api::error::ErrorKind::Unknown,
            "Can only delete local media",
        ));
    }
    match remove(&media, &mxc).await.map_err(ApiError::internal)? {
        Removed::Yes => Ok(Json(deleted(&[mxc]))),
        Removed::No => Err(unknown()),
    }
}

/// `DELETE /_synapse/admin/v1/users/{userId}/media`
#[tracing::instrument(name = "synapse_admin.media.remove_of", skip_all)]
async fn remove_all(
    State(media): State<Media>,
    _: Administrator,
    PathArguments(user): PathArguments<OwnedUserId>,
    QueryArguments(Part { limit, .. }): QueryArguments<Part>,
) -> Result<Json<Value>, ApiError> {
    let limit = limit.unwrap_or(PAGE).min(PAGE_MAX);
    let removed = moderate::remove_of(&media, &user, limit).await;
    Ok(Json(deleted(&removed.map_err(ApiError::internal)?)))
}

fn deleted(media: &[Mxc]) -> Value {
    let ids: Vec<&str> = media.iter().map(Mxc::id).collect();
    json!({ "deleted_media": ids, "total": ids.len() })
}

/// Which uploads are to be removed.
#[derive(Deserialize)]
struct Unwanted {
    before_ts: u64,
    #[serde(default)]
    size_gt: u64,
    /// Whether what people and rooms are shown by stays; it does.
    keep_profiles: Option<bool>,
}

/// `POST /_synapse/admin/v1/media/delete`: what was uploaded here, and nobody has asked for since.
#[tracing::instrument(name = "synapse_admin.media.remove_old", skip_all)]
async fn remove_old(
    (State(media), State(rooms)): (State<Media>, State<RoomsPart>),
    _: Administrator,
    QueryArguments(unwanted): QueryArguments<Unwanted>,
) -> Result<Json<Value>, ApiError> {
    if unwanted.before_ts < SURELY_MS {
        return Err(ApiError::invalid_param("before_ts is in 1970: it is in milliseconds"));
    }
    let kept: HashSet<Mxc> = match unwanted.keep_profiles {
        Some(false) => HashSet::new(),
        Some(true) | None => {
            let shown = avatars(&rooms).await.map_err(ApiError::internal)?;
            shown.iter().filter_map(|uri| Mxc::of_uri(uri)).collect()
        }
    };
    let old = Old { before_ms: unwanted.before_ts, larger_than: unwanted.size_gt };
    let removed = moderate::remove_old(&media, old, &kept).await;
    Ok(Json(deleted(&removed.map_err(ApiError::internal)?)))
}

#[derive(Deserialize)]
struct Before {
    before_ts: u64,
}

/// `POST /_synapse/admin/v1/purge_media_cache`
#[tracing::instrument(name = "synapse_admin.media.purge", skip_all)]
async fn purge(
    State(media): State<Media>,
    _: Administrator,
    QueryArguments(Before { before_ts }): QueryArguments<Before>,
) -> Result<Json<Value>, ApiError> {
    let done = moderate::purge_remote(&media, before_ts).await.map_err(ApiError::internal)?;
    Ok(Json(json!({ "deleted": done })))
}
