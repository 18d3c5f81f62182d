//! Asking a service whether it can be reached (spec: Application Service API, Pinging).

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    AppServices, CallError, Service,
    call::{Call, Endpoint, Form, call_as},
};

impl AppServices {
    /// Pings a service, and tells how long it took.
    ///
    /// # Errors
    /// Where it does not answer as it should.
    pub async fn ping(
        &self,
        service: &Service,
        transaction: Option<&str>,
    ) -> Result<Duration, CallError> {
        let body = match transaction {
            Some(transaction) => json!({ "transaction_id": transaction }),
            None => json!({}),
        };
        let call = Call {
            endpoint: Endpoint::Ping,
            query: &[],
            body: Some(body.to_string().into()),
            timeout: self.settings.query_timeout,
        };
        let begun = Instant::now();
        call_as(&self.client, service, &call, Form::Stable).await?;
        Ok(begun.elapsed())
    }
}
