//! Asking the policy servers of rooms to sign events (spec: Server-Server API, Policy Servers). When
//! they have to is decided in `millrace_domain::rooms::policy`.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use millrace_domain::rooms::policy::{AskedFor, NotVouched, PolicyServers};
use millrace_model::Pdu;
use ruma::{
    api::{
        error::{Error as MatrixError, ErrorBody, ErrorKind},
        federation::policy::sign_event::v1 as sign_event,
    },
    events::room::policy::RoomPolicyEventContent,
};

use crate::{
    peers::{PeerError, Peers},
    transport::ExchangeLimits,
};

/// Bounds on asking: whoever sends an event waits for it.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(10), answer_bytes_max: 64 * 1024 };

/// Policy servers are servers as any.
pub(crate) struct PolicyPeers(Peers);

impl PolicyPeers {
    pub fn new(peers: Peers) -> Self {
        Self(peers)
    }
}

impl PolicyServers for PolicyPeers {
    fn sign<'a>(
        &'a self,
        policy: &'a RoomPolicyEventContent,
        event: &'a Pdu,
        asked_for: AskedFor,
    ) -> BoxFuture<'a, Result<String, NotVouched>> {
        async move {
            let raw = event.to_raw().map_err(unreachable)?;
            let peers = match asked_for {
                AskedFor::Sender => self.0.insisting(),
                // Else each event of a room would wait for a server that is down.
                AskedFor::Receiver => self.0.clone(),
            };
            let request = sign_event::Request::new(raw);
            let answer =
                peers.ask_within(&policy.via, request, LIMITS).await.map_err(not_vouched)?;
            let signature = answer.ed25519_signature(&policy.via).ok_or(NotVouched::Unsigned)?;
            Ok(signature.to_owned())
        }
        .boxed()
    }
}

fn unreachable(error: impl std::fmt::Display) -> NotVouched {
    NotVouched::Unreachable(error.to_string())
}

fn not_vouched(error: PeerError) -> NotVouched {
    match error {
        PeerError::Refused { status, error, .. } if status.is_client_error() => {
            let kind = error.error_kind().cloned().unwrap_or(ErrorKind::Forbidden);
            NotVouched::Refused { kind, message: words(&error) }
        }
        PeerError::Unreadable { .. } => NotVouched::Unsigned,
        error => unreachable(error),
    }
}

/// What an error says to people.
fn words(error: &MatrixError) -> String {
    match &error.body {
        ErrorBody::Standard(body) => body.message.clone(),
        _ => "the room's policy server refuses the event".to_owned(),
    }
}
