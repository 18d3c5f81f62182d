//! How a request reaches another server: over HTTPS, or through a simulated network in tests.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
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

/// Carries signed requests to other servers and brings their answers, whatever the status.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`, whose URI has a path and a query only, to `destination`.
    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>>;
}
