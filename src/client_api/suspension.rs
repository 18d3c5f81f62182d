//! What suspended users may not do: client-server API, "Account suspension". They read, leave, log
//! out, verify devices, keep their keys, redact what they sent, and give up their account; what
//! others would see or hear of is refused, and contacts stay as they are known.

use http::{Method, StatusCode};
use ruma::api::error::ErrorKind;

use super::{
    endpoint_patterns::{MAKES_EVENTS, Pattern, any_fits},
    error::ApiError,
};

/// What is refused beside all that [`MAKES_EVENTS`].
const FORBIDDEN: [Pattern; 13] = [
    (Method::PUT, "rooms/*/typing/*"),
    (Method::PUT, "directory/room/*"),
    (Method::DELETE, "directory/room/*"),
    (Method::PUT, "directory/list/room/*"),
    (Method::PUT, "profile/*/*"),
    (Method::DELETE, "profile/*/*"),
    (Method::PUT, "presence/*/status"),
    (Method::POST, "account/3pid/bind"),
    (Method::POST, "account/3pid/unbind"),
    (Method::POST, "account/3pid/delete"),
    // Media:
    (Method::POST, "upload"),
    (Method::POST, "create"),
    (Method::PUT, "upload/*/*"),
];

/// What may be sent all the same: redactions, which are looked at one by one.
const ALLOWED: [Pattern; 1] = [(Method::PUT, "rooms/*/send/m.room.redaction/*")];

/// Refuses what a suspended user may not do with `M_USER_SUSPENDED`.
pub(super) fn check(method: &Method, path: &str) -> Result<(), ApiError> {
    let forbidden = any_fits(&MAKES_EVENTS, method, path) || any_fits(&FORBIDDEN, method, path);
    if forbidden && !any_fits(&ALLOWED, method, path) {
        let message = "You cannot do this while your account is suspended";
        return Err(ApiError::new(StatusCode::FORBIDDEN, ErrorKind::UserSuspended, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspended_users_are_silent_and_may_leave() {
        let allowed =
            |method, path: &str| check(&method, &format!("/_matrix/client/{path}")).is_ok();
        assert!(!allowed(Method::PUT, "v3/rooms/!a:b/send/m.room.message/1"));
        assert!(!allowed(Method::PUT, "r0/rooms/!a:b/state/m.room.topic/"));
        assert!(!allowed(Method::POST, "unstable/xyz.amorgan.knock/knock/!a:b"));
        assert!(!allowed(Method::PUT, "v3/profile/@a:b/displayname"));
        assert!(check(&Method::POST, "/_matrix/media/v3/upload").is_err());
        assert!(allowed(Method::PUT, "v3/rooms/!a:b/send/m.room.redaction/1"));
        assert!(allowed(Method::PUT, "v3/rooms/!a:b/redact/$x/1"));
        assert!(allowed(Method::POST, "v3/rooms/!a:b/leave"));
        assert!(allowed(Method::GET, "v3/sync"));
        assert!(allowed(Method::POST, "v3/account/deactivate"));
        assert!(allowed(Method::PUT, "v3/sendToDevice/m.room.encrypted/1"));
    }
}
