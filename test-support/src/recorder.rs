//! Other servers that only note what they are sent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use millrace_federation::{
    Transport,
    transport::{ExchangeLimits, TransportError},
};
use ruma::ServerName;
use serde_json::Value;
use tokio::sync::watch;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It is down.
    Down,
    /// It notes it and answers.
    Up,
    /// It notes it, and the answer is lost.
    LosesAnswers,
    /// It notes it and does not answer before its manner changes.
    Holds,
    /// It notes it and answers with this status.
    Refuses(u16),
}

/// A transaction as it came.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its ID.
    pub id: String,
    /// Its body.
    pub body: Value,
}

impl Transaction {
    /// Its events.
    #[must_use]
    pub fn pdus(&self) -> &[Value] {
        self.body["pdus"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Its events, where it is one to an application service.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        self.body["events"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Contents of its EDUs of one type.
    #[must_use]
    pub fn edus(&self, kind: &str) -> Vec<&Value> {
        let edus = self.body["edus"].as_array().map_or(&[][..], Vec::as_slice);
        edus.iter().filter(|edu| edu["edu_type"] == kind).map(|edu| &edu["content"]).collect()
    }
}

/// All other servers of a server under test, down until they are told otherwise. Clones are the same.
#[derive(Clone)]
pub struct Recorder(Arc<watch::Sender<HashMap<String, Recorded>>>);

#[derive(Clone)]
struct Recorded {
    manner: Manner,
    attempts: usize,
    transactions: Vec<Transaction>,
}

impl Default for Recorded {
    fn default() -> Self {
        Self { manner: Manner::Down, attempts: 0, transactions: Vec::new() }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(HashMap::new())))
    }
}

impl Recorder {
    /// From now on `server` treats transactions so.
    pub fn set(&self, server: &str, manner: Manner) {
        self.0.send_modify(|servers| {
            servers.entry(server.to_owned()).or_default().manner = manner;
        });
    }

    /// The network as the server under test uses it.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(self.clone())
    }

    /// How often it was tried to reach `server`.
    #[must_use]
    pub fn attempts(&self, server: &str) -> usize {
        self.0.borrow().get(server).map_or(0, |recorded| recorded.attempts)
    }

    /// How often it was tried to reach anybody.
    #[must_use]
    pub fn attempts_of_all(&self) -> usize {
        self.0.borrow().values().map(|recorded| recorded.attempts).sum()
    }

    /// What `server` was sent.
    #[must_use]
    pub fn sent_to(&self, server: &str) -> Vec<Transaction> {
        let servers = self.0.borrow();
        servers.get(server).map(|recorded| recorded.transactions.clone()).unwrap_or_default()
    }

    /// Waits until what `server` was sent is so, and returns it.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn until(
        &self,
        server: &str,
        is_so: impl Fn(&[Transaction]) -> bool,
    ) -> Vec<Transaction> {
        self.reached(server, is_so).await;
        self.sent_to(server)
    }

    /// Waits until what `server` was sent is so.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn reached(&self, server: &str, is_so: impl Fn(&[Transaction]) -> bool) {
        let mut servers = self.0.subscribe();
        let none = Recorded::default();
        let wait =
            servers.wait_for(|servers| is_so(&servers.get(server).unwrap_or(&none).transactions));
        let came = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(came, "{server} was only sent {:#?}", self.sent_to(server));
    }

    /// Waits until it was tried so often to reach `server`.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn tried(&self, server: &str, times: usize) {
        let mut servers = self.0.subscribe();
        let wait = servers.wait_for(|servers| {
            servers.get(server).is_some_and(|recorded| recorded.attempts >= times)
        });
        let tried = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(tried, "{server} was tried {} times only", self.attempts(server));
    }

    fn note(&self, server: &str, request: &http::Request<Bytes>) -> Manner {
        let mut manner = Manner::Down;
        let id = request.uri().path().strip_prefix("/_matrix/federation/v1/send/");
        self.0.send_modify(|servers| {
            let recorded = servers.entry(server.to_owned()).or_default();
            recorded.attempts += 1;
            manner = recorded.manner;
            if manner != Manner::Down
                && let Some(id) = id
            {
                let body = serde_json::from_slice(request.body()).unwrap_or_default();
                recorded.transactions.push(Transaction { id: id.to_owned(), body });
            }
        });
        manner
    }

    fn manner(&self, server: &str) -> Manner {
        self.0.borrow().get(server).map_or(Manner::Down, |recorded| recorded.manner)
    }
}

impl Transport for Recorder {
    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        _: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        async move {
            let server = destination.as_str();
            let mut manner = self.note(server, &request);
            if manner == Manner::Holds {
                let mut servers = self.0.subscribe();
                let holds = |all: &HashMap<String, Recorded>| {
                    all.get(server).is_some_and(|recorded| recorded.manner == Manner::Holds)
                };
                let _ = servers.wait_for(|all| !holds(all)).await;
                manner = self.manner(server);
            }
            let answer = |status, body| {
                let mut answer = http::Response::new(Bytes::from_static(body));
                *answer.status_mut() = status;
                Ok(answer)
            };
            match manner {
                Manner::Up | Manner::Holds => answer(http::StatusCode::OK, br#"{"pdus":{}}"#),
                Manner::Refuses(status) => {
                    let status = http::StatusCode::from_u16(status).unwrap_or_default();
                    answer(status, br#"{"errcode":"M_UNKNOWN","error":"no"}"#)
                }
                Manner::Down | Manner::LosesAnswers => {
                    Err(TransportError::Unreachable("nobody answers".to_owned()))
                }
            }
        }
        .boxed()
    }
}
