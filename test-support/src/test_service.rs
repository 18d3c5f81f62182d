//! An application service of a test's own, on loopback.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{Manner, Transaction};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Below which the service serves transactions.
const TRANSACTIONS: &str = "/_matrix/app/v1/transactions/";
/// The same, as services did before there were versions.
const OLD_TRANSACTIONS: &str = "/transactions/";

/// Answers a question: by path and query, a status and a body.
type Answerer = Box<dyn Fn(String) -> BoxFuture<'static, Option<(u16, Value)>> + Send + Sync>;

/// A service that notes what it is told, and answers as the test says.
pub struct TestService {
    port: u16,
    id: String,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

struct Shared {
    hs_token: String,
    noted: watch::Sender<Noted>,
    answerer: Mutex<Option<Arc<Answerer>>>,
}

#[derive(Clone)]
struct Noted {
    manner: Manner,
    /// Whether it only knows the older paths.
    old: bool,
    transactions: Vec<Transaction>,
    /// Method, path and query of all that was asked, transactions too.
    asked: Vec<String>,
}

impl TestService {
    /// A service with the ID `id`, which is there.
    ///
    /// # Panics
    /// If nothing can be listened on.
    pub async fn start(id: &str) -> Self {
        let noted =
            Noted { manner: Manner::Up, old: false, transactions: Vec::new(), asked: Vec::new() };
        let shared = Arc::new(Shared {
            hs_token: format!("hs-token-of-{id}"),
            noted: watch::Sender::new(noted),
            answerer: Mutex::default(),
        });
        let mut service = Self { port: 0, id: id.to_owned(), shared, task: None };
        service.come_back().await;
        service
    }

    /// Its `as_token`.
    #[must_use]
    pub fn token(&self) -> String {
        format!("as-token-of-{}", self.id)
    }

    /// Its registration, its sender named `ID-bot`, with more lines of YAML.
    #[must_use]
    pub fn registration(&self, more: &str) -> String {
        let Self { port, id, .. } = self;
        format!(
            "id: {id}\nurl: http://127.0.0.1:{port}\nas_token: {}\nhs_token: {}\n\
             sender_localpart: {id}-bot\n{more}\n",
            self.token(),
            self.shared.hs_token
        )
    }

    /// From now on it treats transactions so.
    pub fn set(&self, manner: Manner) {
        self.shared.noted.send_modify(|noted| noted.manner = manner);
    }

    /// From now on it only knows the paths of before there were versions.
    pub fn be_old(&self) {
        self.shared.noted.send_modify(|noted| noted.old = true);
    }

    /// From now on it answers other questions so, by path and query; what is not answered is not
    /// found.
    pub fn answer(
        &self,
        answerer: impl Fn(String) -> BoxFuture<'static, Option<(u16, Value)>> + Send + Sync + 'static,
    ) {
        *self.shared.answerer.lock() = Some(Arc::new(Box::new(answerer)));
    }

    /// It is not there any more: connections are refused.
    pub async fn go_away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// It is there again, at the same address.
    ///
    /// # Panics
    /// If the address is taken.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("a free port");
        self.port = listener.local_addr().expect("an address").port();
        let shared = Arc::clone(&self.shared);
        let router = Router::new().fallback(move |request: Request| {
            let shared = Arc::clone(&shared);
            async move { shared.serve(request).await }
        });
        let serve = async { axum::serve(listener, router).await.expect("it serves for ever") };
        self.task = Some(tokio::spawn(serve));
    }

    /// What it was sent, repeated transactions too.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        self.shared.noted.borrow().transactions.clone()
    }

    /// What it was asked: method, path and query.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.noted.borrow().asked.clone()
    }

    /// The events that it was sent, each transaction once, as a service counts them.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let noted = self.shared.noted.borrow();
        once(&noted.transactions).flat_map(Transaction::events).cloned().collect()
    }

    /// The texts of the messages among its events.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let noted = self.shared.noted.borrow();
        texts(&noted.transactions)
    }

    /// Waits until what it was sent is so.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn until(&self, is_so: impl Fn(&[Transaction]) -> bool) {
        let mut noted = self.shared.noted.subscribe();
        let wait = noted.wait_for(|noted| is_so(&noted.transactions));
        let came = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(came, "it was only sent {:#?}", self.transactions());
    }

    /// Waits until it was sent a message of this text.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn until_told(&self, text: &str) {
        self.until(|sent| texts(sent).iter().any(|told| told == text)).await;
    }

    /// Waits until it was asked something that begins so.
    ///
    /// # Panics
    /// If that does not come.
    pub async fn until_asked(&self, start: &str) {
        let mut noted = self.shared.noted.subscribe();
        let wait = noted.wait_for(|noted| noted.asked.iter().any(|asked| asked.starts_with(start)));
        let came = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(came, "it was only asked {:#?}", self.asked());
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Transactions without those that are repeated.
fn once(transactions: &[Transaction]) -> impl Iterator<Item = &Transaction> {
    let mut seen = std::collections::HashSet::new();
    transactions.iter().filter(move |transaction| seen.insert(transaction.id.clone()))
}

fn texts(transactions: &[Transaction]) -> Vec<String> {
    let events = once(transactions).flat_map(Transaction::events);
    let texts = events.filter_map(|event| event["content"]["body"].as_str());
    texts.map(str::to_owned).collect()
}

impl Shared {
    async fn serve(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let whole = parts.uri.path_and_query().map_or(path.clone(), ToString::to_string);
        self.noted.send_modify(|noted| noted.asked.push(format!("{} {whole}", parts.method)));
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if token != Some(&format!("Bearer {}", self.hs_token)) {
            return answer(403, &json!({ "errcode": "M_FORBIDDEN", "error": "wrong token" }));
        }
        let old = self.noted.borrow().old;
        if old && path.starts_with("/_matrix/app/v1/") {
            return (StatusCode::NOT_FOUND, Body::from("no such page")).into_response();
        }
        let transaction = path.strip_prefix(TRANSACTIONS).or(path.strip_prefix(OLD_TRANSACTIONS));
        if parts.method == Method::PUT
            && let Some(id) = transaction
        {
            return self.take(id, body).await;
        }
        let answerer = self.answerer.lock().clone();
        let said = match answerer {
            Some(answerer) => answerer(whole).await,
            None => None,
        };
        let (status, body) = match said {
            Some(said) => said,
            None if path == "/_matrix/app/v1/ping" => (200, json!({})),
            None => (404, json!({ "errcode": "M_NOT_FOUND", "error": "not here" })),
        };
        answer(status, &body)
    }

    async fn take(&self, id: &str, body: Body) -> Response {
        let bytes = to_bytes(body, usize::MAX).await.expect("bodies are whole");
        let body = serde_json::from_slice(&bytes).expect("a transaction is JSON");
        let mut manner = Manner::Down;
        self.noted.send_modify(|noted| {
            manner = noted.manner;
            if manner != Manner::Down {
                noted.transactions.push(Transaction { id: id.to_owned(), body });
            }
        });
        if manner == Manner::Holds {
            let mut noted = self.noted.subscribe();
            let _ = noted.wait_for(|noted| noted.manner != Manner::Holds).await;
        }
        match manner {
            Manner::Up | Manner::Holds => answer(200, &json!({})),
            Manner::Refuses(status) => answer(status, &json!({ "errcode": "M_UNKNOWN" })),
            Manner::Down | Manner::LosesAnswers => answer(503, &json!({})),
        }
    }
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
