//! Crates depend downwards only, as ARCHITECTURE.md draws them. What is not drawn is refused.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use serde_json::Value;

/// Each crate of ours, and those of ours that it may use.
const DRAWN: [(&str, &[&str]); 12] = [
    ("millrace-model", &[]),
    ("millrace-store", &["millrace-model"]),
    ("millrace-domain", &["millrace-store", "millrace-model"]),
    ("millrace-federation", &["millrace-domain", "millrace-store", "millrace-model"]),
    ("millrace-media", &["millrace-domain", "millrace-store", "millrace-model"]),
    ("millrace-search", &["millrace-domain", "millrace-store", "millrace-model"]),
    ("millrace-appservices", &["millrace-domain", "millrace-store", "millrace-model"]),
    ("millrace-pushers", &["millrace-domain", "millrace-store", "millrace-model"]),
    ("millrace-push-gateway", &[]),
    (
        "millrace",
        &[
            "millrace-federation",
            "millrace-media",
            "millrace-appservices",
            "millrace-pushers",
            "millrace-search",
            "millrace-domain",
            "millrace-store",
            "millrace-model",
        ],
    ),
    ("millrace-fuzz", &["millrace-federation", "millrace-model"]),
    (
        TEST_SUPPORT,
        &[
            "millrace",
            "millrace-federation",
            "millrace-media",
            "millrace-appservices",
            "millrace-pushers",
            "millrace-search",
            "millrace-domain",
            "millrace-store",
            "millrace-model",
        ],
    ),
];

/// Only tests may use it; it may use whatever a test needs.
const TEST_SUPPORT: &str = "millrace-test-support";

/// What a layer must not know, from outside of the workspace.
const UNKNOWN_TO: [(&str, &[&str]); 5] = [
    ("millrace-model", &["tokio", "futures", "rocksdb", "axum", "hyper", "http", "reqwest"]),
    ("millrace-store", &["axum", "hyper", "http", "reqwest", "figment"]),
    ("millrace-domain", &["rocksdb", "axum", "hyper", "http", "reqwest", "figment", "clap"]),
    ("millrace-pushers", &["rocksdb", "axum", "hyper", "http", "reqwest", "figment", "clap"]),
    ("millrace-search", &["rocksdb", "axum", "hyper", "http", "reqwest", "figment", "clap"]),
];

struct Edge {
    from: String,
    to: String,
    for_tests: bool,
}

/// Every dependency that a crate of the workspace declares.
fn edges() -> Vec<Edge> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .flat_map(|package| {
            package["dependencies"].as_array().unwrap().iter().map(|dependency| Edge {
                from: text(&package["name"]),
                to: text(&dependency["name"]),
                for_tests: dependency["kind"] == "dev",
            })
        })
        .collect()
}

fn is_ours(name: &str) -> bool {
    name == "millrace" || name.starts_with("millrace-")
}

/// Why an edge must not be, if so.
fn refusal(edge: &Edge) -> Option<String> {
    let Edge { from, to, for_tests } = edge;
    let undrawn = |name: &str| !DRAWN.iter().any(|(drawn, _)| *drawn == name);
    if let Some(name) = [from, to].into_iter().find(|name| is_ours(name) && undrawn(name)) {
        return Some(format!("{name} is not drawn: give it a layer here and in ARCHITECTURE.md"));
    }
    let forbidden = UNKNOWN_TO.iter().find(|(name, _)| name == from).map_or(&[][..], |(_, l)| *l);
    if forbidden.contains(&to.as_str()) && !for_tests {
        return Some(format!("{from} must not know {to}"));
    }
    let drawn = DRAWN.iter().find(|(name, _)| name == from).map_or(&[][..], |(_, to)| *to);
    let allowed =
        !is_ours(to) || drawn.contains(&to.as_str()) || (*for_tests && to == TEST_SUPPORT);
    (!allowed).then(|| format!("{from} must not use {to}"))
}

#[test]
fn no_dependency_is_drawn_nowhere() {
    let edges = edges();
    let refused: Vec<String> = edges.iter().filter_map(refusal).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(edges.iter().any(|edge| edge.from == "millrace" && edge.to == "millrace-domain"));
}

#[test]
fn edges_against_the_drawing_are_refused() {
    let edge =
        |from: &str, to: &str, for_tests| Edge { from: from.into(), to: to.into(), for_tests };
    for (from, to) in [
        ("millrace-model", "millrace-store"),
        ("millrace-store", "millrace-domain"),
        ("millrace-domain", "millrace"),
        ("millrace-federation", "millrace-appservices"),
        ("millrace-media", "millrace-federation"),
        ("millrace-push-gateway", "millrace-model"),
        ("millrace-domain", TEST_SUPPORT),
        ("millrace-domain", "axum"),
        ("millrace-model", "tokio"),
        ("millrace", "millrace-something-new"),
    ] {
        assert!(refusal(&edge(from, to, false)).is_some(), "{from} -> {to}");
    }
    assert!(refusal(&edge("millrace-domain", TEST_SUPPORT, true)).is_none());
    assert!(refusal(&edge("millrace-store", "millrace-model", false)).is_none());
}
