//! Transactions of other servers (spec: Server-Server API, Transactions).

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_federation::inbound::{AcceptError, Inbound, Transaction};
use ruma::api::federation::transactions::send_transaction_message::v1 as send_transaction;

use super::authenticate::Signed;
use crate::{
    app::App,
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(send)
}

/// `PUT /_matrix/federation/v1/send/{txnId}`
#[tracing::instrument(name = "federation.transaction.accept", skip_all, fields(origin = %signed.origin))]
async fn send(
    State(inbound): State<Arc<Inbound>>,
    signed: Signed<send_transaction::Request>,
) -> Result<Matrix<send_transaction::Response>, ApiError> {
    let send_transaction::Request { transaction_id, origin, pdus, edus, .. } = signed.request;
    if origin != signed.origin {
        return Err(ApiError::forbidden("The transaction says that it is of another server"));
    }
    let transaction = Transaction { id: transaction_id, pdus, edus };
    let results = inbound.accept(&signed.origin, transaction).await?;
    Ok(Matrix(send_transaction::Response::new(results)))
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::TooMany => Self::bad_json(error),
            AcceptError::Read(_) | AcceptError::Store(_) => Self::internal(error),
        }
    }
}
