//! Every endpoint of the client-server API, as the specification v1.19 lists them (`list.tsv`): for
//! each there is a case with a success whose effect another request sees, and a refusal with the
//! errcode that it must have. An endpoint without a case fails the test, as does a case that did
//! not ask its endpoint both. What is left to later work is listed here by name.

mod accounts;
mod discovery;
mod encryption;
mod events;
mod media;
mod members;
mod rooms;
mod sign_on;
mod third_party_ids;
mod user_data;
mod world;

use std::{collections::BTreeMap, panic::AssertUnwindSafe};

use futures::future::{BoxFuture, FutureExt};
use http::Method;

use self::world::{Exchange, World};

/// The endpoints: operation, method, path, and the version that added them.
const LIST: &str = include_str!("list.tsv");

/// The OAuth 2.0 API is later work; it is answered as by a server without it.
const LATER: [&str; 1] = ["getAuthMetadata"];

/// Endpoints that anybody may ask anything: nothing is refused.
const OPEN: [&str; 2] = ["getVersions", "getLoginFlows"];

/// Endpoints at which a server without bridges finds nothing, as the specification says of one.
const NOTHING: [&str; 5] = [
    "getProtocolMetadata",
    "queryLocationByProtocol",
    "queryUserByProtocol",
    "queryLocationByAlias",
    "queryUserByID",
];

/// Endpoints that browsers go to: what they refuse is said on a page, without an errcode.
const PAGES: [&str; 2] = ["redirectToSSO", "redirectToIdP"];

/// What is tried at one endpoint.
pub struct Case {
    operation: &'static str,
    run: for<'a> fn(&'a World) -> BoxFuture<'a, ()>,
}

/// Cases, each under the operation's name in the specification.
macro_rules! cases {
    ($($operation:ident($world:ident) $body:block)*) => {
        pub fn cases() -> Vec<super::Case> {
            use futures::FutureExt;
            vec![$(super::Case {
                operation: stringify!($operation),
                run: |$world| async move { $body }.boxed(),
            }),*]
        }
    };
}
pub(crate) use cases;

struct Endpoint {
    operation: &'static str,
    method: Method,
    path: &'static str,
}

fn endpoints() -> Vec<Endpoint> {
    let rows = LIST.lines().skip(1).map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().expect("four columns");
        let (operation, method, path) = (next(), next(), next());
        Endpoint { operation, method: method.parse().expect("a method"), path }
    });
    rows.collect()
}

/// Whether a path is one of an endpoint. State keys and rule kinds may be empty.
fn fits(template: &str, path: &str) -> bool {
    let (mut expected, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return true,
            (Some(expected), Some(found)) if expected.starts_with('{') || expected == found => {}
            _ => return false,
        }
    }
}

#[tokio::test]
async fn every_endpoint_does_what_it_should_and_refuses_what_it_must() {
    let all = [
        accounts::cases(),
        discovery::cases(),
        encryption::cases(),
        events::cases(),
        media::cases(),
        members::cases(),
        rooms::cases(),
        sign_on::cases(),
        third_party_ids::cases(),
        user_data::cases(),
    ];
    let cases: BTreeMap<_, _> =
        all.into_iter().flatten().map(|case| (case.operation, case.run)).collect();
    let endpoints = endpoints();
    let known = |operation: &str| endpoints.iter().any(|endpoint| endpoint.operation == operation);
    let named = cases.keys().chain(&LATER);
    let unknown: Vec<_> = named.filter(|operation| !known(operation)).collect();
    assert!(unknown.is_empty(), "not in the specification: {unknown:?}");
    let mut problems = Vec::new();
    for endpoint in &endpoints {
        let Some(run) = cases.get(endpoint.operation) else {
            if !LATER.contains(&endpoint.operation) {
                problems.push(format!("{}: no case", endpoint.operation));
            }
            continue;
        };
        let world = World::new().await;
        if AssertUnwindSafe(run(&world)).catch_unwind().await.is_err() {
            problems.push(format!("{}: see above", endpoint.operation));
        }
        let asked = world
            .exchanges()
            .into_iter()
            .filter(|asked| asked.method == endpoint.method && fits(endpoint.path, &asked.path));
        problems.extend(shortcomings(endpoint.operation, &asked.collect::<Vec<_>>()));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What an endpoint was not asked, or should not have answered.
fn shortcomings(operation: &str, asked: &[Exchange]) -> Vec<String> {
    let mut problems = Vec::new();
    if !NOTHING.contains(&operation) && !asked.iter().any(|asked| asked.status < 400) {
        problems.push(format!("{operation}: no success"));
    }
    let refused = |asked: &&Exchange| {
        asked.status >= 400 && asked.errcode.is_empty() == PAGES.contains(&operation)
    };
    if !OPEN.contains(&operation) && !asked.iter().any(|asked| refused(&asked)) {
        problems.push(format!("{operation}: no refusal"));
    }
    if let Some(asked) = asked.iter().find(|asked| asked.errcode == "M_UNRECOGNIZED") {
        problems.push(format!("{operation}: {} {} is unrecognised", asked.method, asked.path));
    }
    problems
}
