//! The endpoints.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use crate::{
    gateway::{Gateway, NotNow, Reply},
    notification::NotifyRequest,
};

/// Largest call, in bytes: an event has 64 KiB at most.
const CALL_BYTES_MAX: usize = 256 * 1024;
/// Devices of one call.
const DEVICES_MAX: usize = 256;
/// When a homeserver may come again that met too many calls, in seconds.
const CALLS_FULL_FOR_S: u64 = 1;

/// What homeservers reach.
pub fn public(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/_matrix/push/v1/notify", post(notify))
        .route("/health", get(health))
        .fallback(|| async {
            error(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "There is nothing here.")
        })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Not with this method.")
        })
        .layer(DefaultBodyLimit::max(CALL_BYTES_MAX))
        .with_state(gateway)
}

/// What Prometheus reaches.
pub fn metrics(gateway: Arc<Gateway>) -> Router {
    let text = async |State(gateway): State<Arc<Gateway>>| {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], gateway.metrics_text())
    };
    Router::new().route("/metrics", get(text)).with_state(gateway)
}

/// `GET /health`
async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" })))
            .into_response();
    }
    Json(json!({ "status": "ok" })).into_response()
}

/// `POST /_matrix/push/v1/notify`
async fn notify(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Response {
    let response = answer(&gateway, &body).await;
    gateway.metrics.call(response.status().as_u16());
    response
}

async fn answer(gateway: &Arc<Gateway>, body: &Bytes) -> Response {
    if gateway.is_stopping() {
        let stopping =
            error(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", "The gateway is stopping.");
        return later(stopping, CALLS_FULL_FOR_S);
    }
    let Some(_call) = gateway.call() else {
        let body = Json(json!({
            "errcode": "M_LIMIT_EXCEEDED",
            "error": "Too many calls at the same time.",
            "retry_after_ms": CALLS_FULL_FOR_S * 1000,
        }));
        return later((StatusCode::TOO_MANY_REQUESTS, body).into_response(), CALLS_FULL_FOR_S);
    };
    let request: NotifyRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(problem) => {
            let errcode = if problem.is_data() { "M_BAD_JSON" } else { "M_NOT_JSON" };
            return error(StatusCode::BAD_REQUEST, errcode, &problem.to_string());
        }
    };
    if request.notification.devices.len() > DEVICES_MAX {
        let text = format!("There are more than {DEVICES_MAX} devices.");
        return error(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", &text);
    }
    match gateway.notify(request.notification).await {
        Reply::Accepted { rejected } => Json(json!({ "rejected": rejected })).into_response(),
        Reply::NotNow { reason, after } => {
            let (status, text) = match reason {
                NotNow::QueueFull => {
                    (StatusCode::SERVICE_UNAVAILABLE, "Too many notifications wait.")
                }
                NotNow::VendorFails => {
                    (StatusCode::BAD_GATEWAY, "The push service takes nothing now.")
                }
            };
            later(error(status, "M_UNKNOWN", text), after.as_secs().max(1))
        }
    }
}

fn error(status: StatusCode, errcode: &str, text: &str) -> Response {
    (status, Json(json!({ "errcode": errcode, "error": text }))).into_response()
}

fn later(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
