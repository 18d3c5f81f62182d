use ruma::{event_id, room_id};

use super::*;
use crate::{
    rooms::change_tests::{make, plain, set, user},
    testing,
};

#[tokio::test]
async fn events_are_reported_by_who_is_in_the_room_and_kept() {
    let rooms = testing::rooms().await;
    let room = make(&rooms, &plain("12")).await;
    let event = set(&rooms, &room, ("m.room.name", ""), serde_json::json!({"name": "x"})).await;
    let subject = Subject::Event { room: room.clone(), event: event.clone() };
    let stranger = report(&rooms, &user("bob"), &subject, "spam").await.unwrap_err();
    assert!(matches!(stranger, ReportError::UnknownEvent(_)), "{stranger}");
    let unknown = Subject::Event { room: room.clone(), event: event_id!("$unknown").to_owned() };
    report(&rooms, &user("alice"), &unknown, "spam").await.unwrap_err();
    report(&rooms, &user("alice"), &subject, "spam").await.unwrap();
    report(&rooms, &user("bob"), &Subject::Room { room }, "").await.unwrap();
    let kept = reports(&rooms).await.unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!((&kept[0].1.subject, kept[0].1.reason.as_str()), (&subject, "spam"));
    assert_eq!(kept[1].1.reporter, user("bob"));
}

#[tokio::test]
async fn what_is_not_here_cannot_be_reported() {
    let rooms = testing::rooms().await;
    let room = Subject::Room { room: room_id!("!unknown").to_owned() };
    let nobody = Subject::User { user: user("nobody") };
    for subject in [&room, &nobody] {
        report(&rooms, &user("alice"), subject, "").await.unwrap_err();
    }
    let elsewhere = Subject::User { user: "@a:other.example".try_into().unwrap() };
    report(&rooms, &user("alice"), &elsewhere, "").await.unwrap();
    let long = "x".repeat(REASON_BYTES_MAX + 1);
    let error = report(&rooms, &user("alice"), &elsewhere, &long).await.unwrap_err();
    assert!(matches!(error, ReportError::ReasonTooLong), "{error}");
}
