//! What counts as news of a delivery, and as acknowledged.

use millrace_model::{
    SyncToken,
    position::{Position, View},
};
use millrace_store::{
    Read, Scan,
    rows::receipt::{Reach, Receipt},
    tables::DELIVERED,
};
use ruma::{OwnedEventId, owned_event_id};

use super::{Deliveries, DeliverySettings, Telling, Way};
use crate::{
    receipts::Advance,
    rooms::test_room::{TestRoom, user},
};

fn token(seq: u64) -> SyncToken {
    SyncToken { view: View::at(Position { writer: 0, seq }), to_device: 0, ephemeral: None }
}

async fn told_to_alice(room: &TestRoom) -> Vec<(u8, OwnedEventId)> {
    let snapshot = room.rooms.env.store.snapshot();
    let rows = snapshot.scan(&DELIVERED, user("alice").as_str(), Scan::all()).await.unwrap();
    rows.into_iter().map(|((_, _, reach), receipt)| (reach, receipt.event_id)).collect()
}

#[tokio::test]
async fn a_delivery_never_moves_backwards_and_a_device_is_further_than_a_server() {
    let room = TestRoom::with_visibility("shared").await;
    room.member("bob", "bob", "join").await;
    let (first, second) = (room.say("alice", "1").await, room.say("alice", "2").await);
    let deliveries = Deliveries::new(room.rooms.clone(), DeliverySettings::default());
    let bob = &user("bob");
    for (event, moved) in
        [(&first, Advance::Moved), (&second, Advance::Moved), (&first, Advance::Stale)]
    {
        assert_eq!(deliveries.advance(&room.id, bob, event).await.unwrap(), moved);
    }
    let device = (Reach::Device.id(), second);
    assert_eq!(told_to_alice(&room).await, std::slice::from_ref(&device));

    let way = Way {
        room: room.id.clone(),
        sender: user("alice"),
        recipient: user("bob"),
        reach: Reach::Server,
    };
    let third = room.say("alice", "3").await;
    let n = room.rooms.env.store.snapshot();
    let (_, header) = crate::rooms::events::find(&n, &room.id, &third).await.unwrap().unwrap();
    let n = header.place.unwrap().0;
    let taken = |event_id: &OwnedEventId, n| {
        [(way.clone(), Receipt { event_id: event_id.clone(), ts: 1, n })]
    };
    assert_eq!(deliveries.write(&taken(&first, n - 2)).await.unwrap(), 0);
    assert_eq!(deliveries.write(&taken(&third, n)).await.unwrap(), 1);
    assert_eq!(told_to_alice(&room).await, [(Reach::Server.id(), third), device]);
}

#[tokio::test]
async fn a_device_acknowledges_with_the_token_of_the_response_once_and_with_no_other() {
    let room = TestRoom::with_visibility("shared").await;
    let deliveries = Deliveries::new(room.rooms.clone(), DeliverySettings::default());
    let bob = &user("bob");
    let waiting = || deliveries.arrived.lock().len();
    let tell = |next: u64, sender: &str| {
        let way = Way {
            room: room.id.clone(),
            sender: user(sender),
            recipient: bob.clone(),
            reach: Reach::Device,
        };
        let receipt = Receipt { event_id: owned_event_id!("$e"), ts: 0, n: 1 };
        let telling: Telling = deliveries.telling(bob).unwrap();
        telling.arrivals.lock().push((way, receipt));
        deliveries.tell(telling, Some("D".into()), &token(next));
    };
    tell(2, "alice");
    tell(3, "carol");
    deliveries.acknowledge(bob, Some("D".into()), &token(1));
    deliveries.acknowledge(bob, Some("OTHER".into()), &token(2));
    assert_eq!(waiting(), 0, "the response may be lost");
    deliveries.acknowledge(bob, Some("D".into()), &token(2));
    assert_eq!(waiting(), 1);
    let ts = deliveries.arrived.lock().values().next().unwrap().ts;
    assert_eq!(ts, u64::from(room.rooms.env.now().get()), "it came when it was acknowledged");
    deliveries.acknowledge(bob, Some("D".into()), &token(3));
    deliveries.acknowledge(bob, Some("D".into()), &token(3));
    assert_eq!(waiting(), 2);
}
