//! Pages anywhere, fetched on the word of others: every address on the way is one that we may
//! connect to, also behind a redirect.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::time::Instant;
use url::Url;

use crate::transport::{AnswerBody, ExchangeLimits, Transport, TransportError};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;

/// Fetches pages. Clones are the same.
#[derive(Clone)]
pub struct Pages(Arc<dyn Transport>);

/// A page, and where it was found at last.
pub struct Page {
    /// Behind all redirects.
    pub url: Url,
    /// Its status, headers and content; the status is none of a redirect.
    pub answer: http::Response<AnswerBody>,
}

impl Pages {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self(transport)
    }

    /// Fetches a page over HTTP or HTTPS, and follows redirects. The limits are those of all of it.
    ///
    /// # Errors
    /// Where it, or what it redirects to, is not to be had or not to be asked for.
    pub async fn get(
        &self,
        mut url: Url,
        headers: HeaderMap,
        limits: ExchangeLimits,
    ) -> Result<Page, TransportError> {
        let unresolved = |reason: &str| TransportError::Unresolved(reason.to_owned());
        let deadline = Instant::now() + limits.timeout;
        for _ in 0..=REDIRECTS_MAX {
            let plain = matches!(url.scheme(), "http" | "https");
            if !plain || !url.username().is_empty() || url.password().is_some() {
                return Err(unresolved("only addresses of http and https are asked for"));
            }
            url.set_fragment(None);
            let mut request = http::Request::get(url.as_str())
                .body(Bytes::new())
                .map_err(|error| TransportError::Unresolved(error.to_string()))?;
            *request.headers_mut() = headers.clone();
            let timeout = deadline.saturating_duration_since(Instant::now());
            let answer = self.0.browse(request, ExchangeLimits { timeout, ..limits }).await?;
            if !answer.status().is_redirection() {
                return Ok(Page { url, answer });
            }
            let location = answer.headers().get(header::LOCATION);
            let location =
                location.and_then(|location| std::str::from_utf8(location.as_bytes()).ok());
            let target = location.and_then(|location| url.join(location).ok());
            url = target.ok_or_else(|| unresolved("it redirects to nowhere"))?;
        }
        Err(unresolved("it redirects too often"))
    }
}
