//! Bodies of requests that were answered before they were read.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

/// So many bytes of a body that nobody wants are read; of a larger one the connection is closed.
const UNWANTED_BYTES_MAX: usize = 1 << 20;
/// How long a client may take to send them.
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request. What is left of it when its handler has answered, as one does that refuses,
/// is read and thrown away: else the connection would be closed behind the answer, and a client that
/// just sends its next request on it would get none.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
}

impl RequestBody {
    pub fn new(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming) }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(rest) = self.incoming.take().filter(|rest| !rest.is_end_stream()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tokio::time::timeout(UNWANTED_TIMEOUT, throw_away(rest)));
        }
    }
}

async fn throw_away(mut rest: Incoming) {
    let mut left = UNWANTED_BYTES_MAX;
    while let Some(Ok(frame)) = rest.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}
