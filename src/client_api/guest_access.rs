//! What guests may do: client-server API, "Guest Access", "Client behaviour".

use http::Method;

use super::endpoint_patterns::{Pattern, any_fits};

const ALLOWED: [Pattern; 29] = [
    (Method::GET, "rooms/*/state"),
    (Method::GET, "rooms/*/context/*"),
    (Method::GET, "rooms/*/event/*"),
    (Method::GET, "rooms/*/state/*"),
    (Method::GET, "rooms/*/state/*/*"),
    (Method::GET, "rooms/*/messages"),
    (Method::GET, "rooms/*/members"),
    (Method::GET, "rooms/*/initialSync"),
    (Method::GET, "sync"),
    (Method::GET, "events"),
    (Method::GET, "media/download/*/*"),
    (Method::GET, "media/download/*/*/*"),
    (Method::GET, "media/thumbnail/*/*"),
    (Method::POST, "rooms/*/join"),
    (Method::POST, "join/*"), // the same as the line above
    (Method::POST, "rooms/*/leave"),
    (Method::PUT, "rooms/*/send/*/*"),
    (Method::PUT, "rooms/*/state/*/*"),
    (Method::PUT, "sendToDevice/*/*"),
    (Method::PUT, "profile/*/displayname"),
    (Method::DELETE, "profile/*/displayname"),
    (Method::GET, "devices"),
    (Method::GET, "devices/*"),
    (Method::PUT, "devices/*"),
    (Method::GET, "account/whoami"),
    (Method::POST, "logout"), // not in the list, but it only takes away
    (Method::POST, "keys/upload"),
    (Method::POST, "keys/query"),
    (Method::POST, "keys/claim"),
];

/// Whether a guest may make this request.
pub(super) fn is_allowed(method: &Method, path: &str) -> bool {
    any_fits(&ALLOWED, method, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_read_rooms_and_do_not_create_them() {
        let allowed = |method, path: &str| is_allowed(&method, &format!("/_matrix/client/{path}"));
        assert!(allowed(Method::GET, "v3/rooms/!a:b/state/m.room.name/"));
        assert!(allowed(Method::PUT, "r0/rooms/!a:b/send/m.room.message/1"));
        assert!(allowed(Method::PUT, "v3/profile/@a:b/displayname"));
        assert!(!allowed(Method::PUT, "v3/profile/@a:b/avatar_url"));
        assert!(!allowed(Method::POST, "v3/createRoom"));
        assert!(!allowed(Method::DELETE, "v3/devices/A"));
        assert!(!allowed(Method::GET, "v3/rooms/!a:b"));
    }
}
