//! How notifications reach push gateways: over the federation's way to hosts that users name, which
//! connects to addresses that we may connect to only.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderValue, header};
use millrace_federation::{
    Transport,
    transport::{ExchangeLimits, TransportError},
};
use millrace_pushers::{GatewayError, Gateways};
use serde::Deserialize;

/// How long a gateway may take, and the largest answer, in bytes.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(30), answer_bytes_max: 64 * 1024 };

/// Push gateways, over a transport.
pub struct PushGateways(pub Arc<dyn Transport>);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    rejected: Vec<String>,
}

#[async_trait]
impl Gateways for PushGateways {
    async fn notify(&self, url: &str, body: String) -> Result<Vec<String>, GatewayError> {
        let failed = |reason: String| GatewayError { reason, after: None };
        let mut request = http::Request::post(url)
            .body(Bytes::from(body))
            .map_err(|error| failed(error.to_string()))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let unreached = |error: TransportError| failed(error.to_string());
        let answer = self.0.browse(request, LIMITS).await.map_err(unreached)?;
        let (head, content) = answer.into_parts();
        if !head.status.is_success() {
            let after = head.headers.get(header::RETRY_AFTER);
            let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
            let reason = format!("it answers {}", head.status.as_u16());
            return Err(GatewayError { reason, after: after.map(Duration::from_secs) });
        }
        let content: BytesMut = content.try_collect().await.map_err(unreached)?;
        let answer: Result<Answer, _> = serde_json::from_slice(&content);
        answer.map(|answer| answer.rejected).map_err(|_| failed("its answer is no JSON".to_owned()))
    }
}
