//! Typed requests to other servers, signed, with typed answers.

use std::{borrow::Cow, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Request, StatusCode, header};
use millrace_domain::Env;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName,
    api::{
        EndpointError, IncomingResponse, IncomingResponseExt, MatrixVersion, OutgoingBody,
        OutgoingRequest, SupportedVersions,
        error::{Error as MatrixError, FromHttpResponseError},
        federation::authentication::ServerSignatures,
        path_builder::{PathBuilder, SinglePath, VersionHistory},
    },
};

use crate::{
    Destinations,
    signing::{self, SignError},
    transport::{AnswerBody, ExchangeLimits, Transport, TransportError},
};

/// How much of a refusal is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Why another server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// This server talks to no others (`allow_federation`).
    #[error("this server does not talk to other servers")]
    Closed,
    /// That is us: a server never asks itself over the network.
    #[error("a server does not ask itself")]
    Ourselves,
    /// It could not be reached a while ago, and is not tried again before this time.
    #[error("{server} is down")]
    Down {
        /// The server.
        server: OwnedServerName,
        /// When it is tried again.
        until: MilliSecondsSinceUnixEpoch,
    },
    /// The request could not be made.
    #[error("the request cannot be made: {0}")]
    Request(String),
    /// No answer came.
    #[error("{server}: {source}")]
    Transport {
        /// Who was asked.
        server: OwnedServerName,
        /// Why there is no answer.
        source: TransportError,
    },
    /// The server refused.
    #[error("{server} answered {error}")]
    Refused {
        /// Who was asked.
        server: OwnedServerName,
        /// The HTTP status.
        status: StatusCode,
        /// The Matrix error.
        error: Box<MatrixError>,
    },
    /// The answer is not of the form that the specification says.
    #[error("{server} sent an answer that cannot be read: {reason}")]
    Unreadable {
        /// Who was asked.
        server: OwnedServerName,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<SignError> for PeerError {
    fn from(error: SignError) -> Self {
        Self::Request(error.to_string())
    }
}

/// How ruma's paths are chosen between servers: by what the newest specification says.
pub trait FederationPath: PathBuilder {
    /// What the path builder needs.
    fn input() -> Self::Input<'static>;
}

impl FederationPath for SinglePath {
    fn input() {}
}

impl FederationPath for VersionHistory {
    fn input() -> Cow<'static, SupportedVersions> {
        let versions = [MatrixVersion::V1_1, MatrixVersion::V1_19].into();
        Cow::Owned(SupportedVersions { versions, features: [].into() })
    }
}

/// The other servers, as we ask them. Clones are cheap.
#[derive(Clone)]
pub struct Peers {
    env: Env,
    /// None where no other server is talked to.
    transport: Option<Arc<dyn Transport>>,
    destinations: Destinations,
    patience: Patience,
}

/// What to do about a server that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Refuse at once.
    Spared,
    /// Try all the same.
    Insisting,
}

impl Peers {
    /// Asks in the name of `env`'s identity, over `transport`, whom `destinations` does not say to
    /// be down. Without `transport` nobody is asked.
    #[must_use]
    pub fn new(
        env: Env,
        transport: Option<Arc<dyn Transport>>,
        destinations: Destinations,
    ) -> Self {
        Self { env, transport, destinations, patience: Patience::Spared }
    }

    /// Whether nobody is asked (and nobody is to be answered).
    #[must_use]
    pub fn are_closed(&self) -> bool {
        self.transport.is_none()
    }

    /// The same servers, asked even when they are said to be down: for what a user waits for.
    #[must_use]
    pub fn insisting(&self) -> Self {
        Self { patience: Patience::Insisting, ..self.clone() }
    }

    /// Sends a signed request and waits for its answer, within the default limits.
    ///
    /// # Errors
    /// Where no answer came, or a refusal, or one that cannot be read.
    pub async fn ask<R>(
        &self,
        server: &ServerName,
        request: R,
    ) -> Result<R::IncomingResponse, PeerError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures>,
        R::PathBuilder: FederationPath,
    {
        self.ask_within(server, request, ExchangeLimits::default()).await
    }

    /// As [`Peers::ask`], within limits of the caller's choice.
    ///
    /// # Errors
    /// As [`Peers::ask`].
    pub async fn ask_within<R>(
        &self,
        server: &ServerName,
        request: R,
        limits: ExchangeLimits,
    ) -> Result<R::IncomingResponse, PeerError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures>,
        R::PathBuilder: FederationPath,
    {
        let mut request = to_http(request)?;
        signing::sign(&mut request, &self.env.identity, server)?;
        self.exchange(server, request, limits).await
    }

    /// Sends a request that needs no signature, such as one for keys.
    ///
    /// # Errors
    /// As [`Peers::ask`].
    pub async fn ask_unsigned<R>(
        &self,
        server: &ServerName,
        request: R,
        limits: ExchangeLimits,
    ) -> Result<R::IncomingResponse, PeerError>
    where
        R: OutgoingRequest,
        R::PathBuilder: FederationPath,
    {
        self.exchange(server, to_http(request)?, limits).await
    }

    /// As [`Peers::ask_within`], for an answer whose content is read piece by piece. A redirect is
    /// an answer too.
    ///
    /// # Errors
    /// As [`Peers::ask`].
    pub async fn stream<R>(
        &self,
        server: &ServerName,
        request: R,
        limits: ExchangeLimits,
    ) -> Result<http::Response<AnswerBody>, PeerError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures>,
        R::PathBuilder: FederationPath,
    {
        let mut request = to_http(request)?;
        signing::sign(&mut request, &self.env.identity, server)?;
        self.streamed(server, request, limits).await
    }

    /// As [`Peers::stream`], for a request that needs no signature.
    ///
    /// # Errors
    /// As [`Peers::ask`].
    pub async fn stream_unsigned(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<http::Response<AnswerBody>, PeerError> {
        self.streamed(server, request, limits).await
    }

    async fn streamed(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<http::Response<AnswerBody>, PeerError> {
        let transport = self.reachable(server)?;
        let answer = transport.stream(server, request, limits).await;
        match &answer {
            // That a medium is too large, or not there yet, is said with the status of an absence.
            Ok(answer) if is_absence(answer.status()) => {}
            Ok(_) => self.destinations.succeeded(server).await,
            Err(TransportError::TooLarge(_)) => {}
            Err(_) => self.destinations.failed(server).await,
        }
        let answer =
            answer.map_err(|source| PeerError::Transport { server: server.to_owned(), source })?;
        if answer.status().is_success() || answer.status().is_redirection() {
            return Ok(answer);
        }
        let (head, mut body) = answer.into_parts();
        let mut refusal = BytesMut::new();
        while let Some(Ok(chunk)) = body.next().await {
            refusal.extend_from_slice(&chunk);
            if refusal.len() > REFUSAL_BYTES_MAX {
                break;
            }
        }
        let mut borrowed = http::Response::from_parts(head, &refusal[..]);
        let (server, status) = (server.to_owned(), borrowed.status());
        borrowed.headers_mut().remove(header::CONTENT_LENGTH);
        let error = Box::new(MatrixError::from_http_response(borrowed));
        Err(PeerError::Refused { server, status, error })
    }

    /// The way to a server that may be asked now.
    fn reachable(&self, server: &ServerName) -> Result<&Arc<dyn Transport>, PeerError> {
        if server == self.env.identity.name {
            return Err(PeerError::Ourselves);
        }
        let transport = self.transport.as_ref().ok_or(PeerError::Closed)?;
        if let Some(until) = self.destinations.due_at(server)
            && until > self.env.now()
            && self.patience == Patience::Spared
        {
            return Err(PeerError::Down { server: server.to_owned(), until });
        }
        Ok(transport)
    }

    async fn exchange<A: IncomingResponse>(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<A, PeerError> {
        let transport = self.reachable(server)?;
        match transport.exchange(server, request, limits).await {
            Ok(response) if is_absence(response.status()) => {
                self.destinations.failed(server).await;
                read(server, &response)
            }
            Ok(response) => {
                self.destinations.succeeded(server).await;
                read(server, &response)
            }
            Err(source) => {
                if !matches!(source, TransportError::TooLarge(_)) {
                    self.destinations.failed(server).await;
                }
                Err(PeerError::Transport { server: server.to_owned(), source })
            }
        }
    }
}

/// Whether an answer is that of a reverse proxy whose server is not there.
fn is_absence(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

fn to_http<R>(request: R) -> Result<Request<Bytes>, PeerError>
where
    R: OutgoingRequest,
    R::PathBuilder: FederationPath,
{
    let cannot = |error: &dyn std::fmt::Display| PeerError::Request(error.to_string());
    let (mut parts, body) = request
        .try_into_http_request_inner("", R::PathBuilder::input())
        .map_err(|error| cannot(&error))?
        .into_parts();
    if let Some(content_type) = body.content_type() {
        parts.headers.entry(header::CONTENT_TYPE).or_insert(content_type);
    }
    let body: Vec<u8> = body.try_into_buf().map_err(|error| cannot(&error.into()))?;
    Ok(Request::from_parts(parts, body.into()))
}

fn read<A: IncomingResponse>(
    server: &ServerName,
    response: &http::Response<Bytes>,
) -> Result<A, PeerError> {
    let server = server.to_owned();
    let status = response.status();
    let mut borrowed = http::Response::new(&**response.body());
    *borrowed.status_mut() = status;
    *borrowed.headers_mut() = response.headers().clone();
    if !status.is_success() {
        let error = Box::new(MatrixError::from_http_response(borrowed));
        return Err(PeerError::Refused { server, status, error });
    }
    A::try_from_http_response(borrowed).map_err(|error| {
        let reason = match error {
            FromHttpResponseError::Deserialization(error) => error.to_string(),
            _ => "an error".to_owned(),
        };
        PeerError::Unreadable { server, reason }
    })
}

#[cfg(test)]
mod tests;
