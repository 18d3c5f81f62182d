//! Groups of endpoints, told by method and path: what guests may do, what a suspended user may not, what
//! makes events.

use http::Method;

/// An endpoint by its method and its path below the version, as in `/_matrix/client/VERSION/…`;
/// `*` is any one segment.
pub(super) type Pattern = (Method, &'static str);

/// What makes events in rooms, but for leaving and redacting, which suspended users may. Who has not agreed
/// to the server's documents may do none of it either.
pub(super) const MAKES_EVENTS: [Pattern; 12] = [
    (Method::POST, "createRoom"),
    (Method::POST, "rooms/*/join"),
    (Method::POST, "join/*"),
    (Method::POST, "knock/*"),
    (Method::POST, "rooms/*/invite"),
    (Method::POST, "rooms/*/kick"),
    (Method::POST, "rooms/*/ban"),
    (Method::POST, "rooms/*/unban"),
    (Method::POST, "rooms/*/upgrade"),
    (Method::PUT, "rooms/*/send/*/*"),
    (Method::PUT, "rooms/*/state/*"),
    (Method::PUT, "rooms/*/state/*/*"),
];

/// Whether a request of the client-server API is for one of these endpoints.
pub(super) fn any_fits(patterns: &[Pattern], method: &Method, path: &str) -> bool {
    let Some(endpoint) = below_version(path) else { return false };
    patterns.iter().any(|(allowed, pattern)| allowed == method && fits(endpoint, pattern))
}

/// What comes after the version; after `unstable` comes the name of the feature.
fn below_version(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/_matrix/")?;
    let path = path.strip_prefix("client/").unwrap_or(path);
    match path.split_once('/')? {
        ("unstable", path) => Some(path.split_once('/')?.1),
        ("media", path) => Some(path.split_once('/')?.1),
        (_version, path) => Some(path),
    }
}

fn fits(endpoint: &str, pattern: &str) -> bool {
    let (mut segments, mut expected) = (endpoint.split('/'), pattern.split('/'));
    loop {
        match (segments.next(), expected.next()) {
            (None, None) => return true,
            (Some(segment), Some(expected)) if expected == "*" || segment == expected => {}
            _ => return false,
        }
    }
}
