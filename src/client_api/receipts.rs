//! Receipts and read markers: client-server API, "Receipts", "Read and unread markers".

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    deliveries::{DELIVERY, Deliveries},
    presence::Presence,
    receipts::{self, AdvanceError, NewReceipt, ReadMarkers, Scope},
};
use millrace_store::rows::receipt::ReceiptKind;
use ruma::{
    OwnedEventId,
    api::client::{
        read_marker::set_read_marker,
        receipt::create_receipt::{self, v3::ReceiptType},
    },
    events::receipt::ReceiptThread,
};

use super::{
    error::ApiError, extract::Matrix, limits::EndpointClass, router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(send).matrix(set_markers)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`: what was read, and what has
/// come to a device (MSC4089), which nobody has to look at for it.
#[tracing::instrument(name = "client.receipts.send", skip_all, fields(room = %request.room_id))]
async fn send(
    State(rooms): State<RoomsPart>,
    (State(presence), State(deliveries)): (State<Arc<Presence>>, State<Arc<Deliveries>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<create_receipt::v3::Request>,
) -> Result<Matrix<create_receipt::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    if request.receipt_type.as_str() == DELIVERY && deliveries.are_enabled() {
        deliveries.advance(&request.room_id, &requester.user, &request.event_id).await?;
        return Ok(Matrix(create_receipt::v3::Response::new()));
    }
    let markers = markers(request.receipt_type, request.thread, request.event_id)?;
    receipts::set_markers(&rooms, &request.room_id, &requester.user, &markers).await?;
    presence.active(&requester.user).await.map_err(ApiError::internal)?;
    Ok(Matrix(create_receipt::v3::Response::new()))
}

fn markers(
    kind: ReceiptType,
    thread: ReceiptThread,
    event_id: OwnedEventId,
) -> Result<ReadMarkers, ApiError> {
    let scope = match thread {
        ReceiptThread::Unthreaded => Scope::All,
        ReceiptThread::Main => Scope::Main,
        ReceiptThread::Thread(root) => Scope::Thread(root),
        _ => return Err(ApiError::invalid_param("thread_id must be \"main\" or an event ID")),
    };
    let kind = match kind {
        ReceiptType::Read => ReceiptKind::Public,
        ReceiptType::ReadPrivate => ReceiptKind::Private,
        ReceiptType::FullyRead if scope == Scope::All => {
            return Ok(ReadMarkers { fully_read: Some(event_id), receipts: Vec::new() });
        }
        ReceiptType::FullyRead => {
            return Err(ApiError::invalid_param("thread_id does not go with m.fully_read"));
        }
        _ => return Err(ApiError::invalid_param("There is no such type of receipt")),
    };
    let receipts = vec![NewReceipt { kind, scope, event_id }];
    Ok(ReadMarkers { fully_read: None, receipts })
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
#[tracing::instrument(name = "client.read_markers.set", skip_all, fields(room = %request.room_id))]
async fn set_markers(
    State(rooms): State<RoomsPart>,
    State(presence): State<Arc<Presence>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_read_marker::v3::Request>,
) -> Result<Matrix<set_read_marker::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let receipt = |kind, event_id| NewReceipt { kind, scope: Scope::All, event_id };
    let public = request.read_receipt.map(|event| receipt(ReceiptKind::Public, event));
    let private = request.private_read_receipt.map(|event| receipt(ReceiptKind::Private, event));
    let receipts = public.into_iter().chain(private).collect();
    let markers = ReadMarkers { fully_read: request.fully_read, receipts };
    receipts::set_markers(&rooms, &request.room_id, &requester.user, &markers).await?;
    presence.active(&requester.user).await.map_err(ApiError::internal)?;
    Ok(Matrix(set_read_marker::v3::Response::new()))
}

impl From<AdvanceError> for ApiError {
    fn from(error: AdvanceError) -> Self {
        match error {
            AdvanceError::NotJoined { .. } => Self::forbidden(error),
            AdvanceError::OtherThread { .. } => Self::invalid_param(error),
            AdvanceError::Load(_) | AdvanceError::Store(_) => Self::internal(error),
        }
    }
}
