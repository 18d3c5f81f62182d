//! How a request reaches another server: over HTTPS, or through a simulated network in tests.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{self, BoxFuture, FutureExt},
    stream::{self, BoxStream},
};
use ruma::ServerName;

/// Bounds on one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// From the first look-up to the last byte of the answer.
    pub timeout: Duration,
    /// Largest answer, in bytes.
    pub answer_bytes_max: usize,
}

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), answer_bytes_max: 16 << 20 }
    }
}

/// Why no answer came.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The server's name leads to no address that we may connect to.
    #[error("it cannot be found: {0}")]
    Unresolved(String),
    /// No connection, a broken one, or a certificate that is not the server's.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("it did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The answer is larger than it may be.
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// The content of an answer, piece by piece.
pub type AnswerBody = BoxStream<'static, Result<Bytes, TransportError>>;

/// Carries signed requests to other servers and brings their answers, whatever the status.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`, whose URI has a path and a query only, to `destination`.
    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>>;

    /// Sends `request`, whose URI is a whole one, to a host that is no Matrix server, such as an
    /// identity server: over HTTPS, and to the same addresses only. Redirects are not followed.
    fn page(
        &self,
        request: http::Request<Bytes>,
        _limits: ExchangeLimits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        future::ready(Err(TransportError::Unresolved(host))).boxed()
    }

    /// As [`Transport::exchange`], for answers that are not to be in memory as a whole. The limits
    /// are those of all of it; what comes beyond them is an error in the content.
    fn stream<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<AnswerBody>, TransportError>> {
        async move { Ok(self.exchange(destination, request, limits).await?.map(whole)) }.boxed()
    }

    /// Fetches a page over HTTPS or plain HTTP, from the same addresses only, to be read piece by piece.
    /// Redirects are not followed.
    fn browse(
        &self,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'_, Result<http::Response<AnswerBody>, TransportError>> {
        async move { Ok(self.page(request, limits).await?.map(whole)) }.boxed()
    }
}

/// Content that is there already.
pub fn whole(content: Bytes) -> AnswerBody {
    stream::once(std::future::ready(Ok(content))).boxed()
}
