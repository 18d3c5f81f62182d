//! The order in which events are received.

use std::collections::{HashMap, HashSet};

use millrace_model::Pdu;
use ruma::OwnedEventId;

/// Indexes of the events so that each comes after its predecessors among them; else their order is
/// kept. Events that follow each other in a circle, as only IDs can that a server makes up (room
/// versions 1 and 2), come in any order.
pub(super) fn oldest_first(events: &[Pdu]) -> Vec<usize> {
    let at: HashMap<&OwnedEventId, usize> =
        events.iter().enumerate().map(|(at, pdu)| (&pdu.event_id, at)).collect();
    let mut entered = vec![false; events.len()];
    let mut order = Vec::with_capacity(events.len());
    for start in 0..events.len() {
        if std::mem::replace(&mut entered[start], true) {
            continue;
        }
        // Each entry: an event, and how many of its predecessors have been looked at.
        let mut path = vec![(start, 0)];
        while let Some((event, looked_at)) = path.last_mut() {
            let (event, next) = (*event, *looked_at);
            *looked_at += 1;
            match events[event].prev_events.get(next) {
                Some(before) => {
                    if let Some(before) = at.get(before).copied()
                        && !std::mem::replace(&mut entered[before], true)
                    {
                        path.push((before, 0));
                    }
                }
                None => {
                    order.push(event);
                    path.pop();
                }
            }
        }
    }
    order
}

/// Those of `found` that can be reached from `from` over the references that `next` gives, taken out
/// of it: what nobody asked for stays behind.
pub(super) fn reached<'a>(
    found: &mut HashMap<OwnedEventId, Pdu>,
    from: impl IntoIterator<Item = &'a OwnedEventId>,
    next: impl Fn(&Pdu) -> &[OwnedEventId],
) -> Vec<Pdu> {
    let mut open: Vec<OwnedEventId> = from.into_iter().cloned().collect();
    let mut reached = Vec::new();
    while let Some(id) = open.pop() {
        if let Some(pdu) = found.remove(&id) {
            open.extend(next(&pdu).iter().cloned());
            reached.push(pdu);
        }
    }
    reached
}

/// Those of `events` whose auth events are all among them or `known`, and so on.
pub(super) fn closed(mut events: Vec<Pdu>, known: &HashSet<OwnedEventId>) -> Vec<Pdu> {
    loop {
        let ids: HashSet<OwnedEventId> = events.iter().map(|pdu| pdu.event_id.clone()).collect();
        let before = events.len();
        events
            .retain(|pdu| pdu.auth_events.iter().all(|id| ids.contains(id) || known.contains(id)));
        if events.len() == before {
            return events;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;
    use serde_json::json;

    use super::*;

    /// An event of room version 1, whose IDs are free.
    fn event(id: &str, prev: &[&str]) -> Pdu {
        let references = |ids: &[&str]| -> Vec<_> {
            ids.iter().map(|id| json!([format!("${id}:x"), { "sha256": "" }])).collect()
        };
        let json = json!({
            "event_id": format!("${id}:x"),
            "room_id": "!r:x",
            "sender": "@a:x",
            "type": "m.room.message",
            "content": {},
            "origin_server_ts": 1,
            "depth": 1,
            "prev_events": references(prev),
            "auth_events": references(prev),
        });
        let rules = millrace_model::rules::room_version::rules(&RoomVersionId::V1).unwrap();
        Pdu::parse(&json.to_string(), rules).unwrap()
    }

    fn ids(events: &[Pdu], order: &[usize]) -> Vec<String> {
        order.iter().map(|at| events[*at].event_id.as_str()[1..2].to_owned()).collect()
    }

    #[test]
    fn predecessors_come_first() {
        let events = [event("c", &["b"]), event("x", &[]), event("a", &["0"]), event("b", &["a"])];
        assert_eq!(ids(&events, &oldest_first(&events)), ["a", "b", "c", "x"]);
    }

    #[test]
    fn a_circle_ends() {
        let events = [event("a", &["b"]), event("b", &["c"]), event("c", &["a", "c"])];
        let mut order = ids(&events, &oldest_first(&events));
        order.sort();
        assert_eq!(order, ["a", "b", "c"]);
        let mut found = events.iter().map(|pdu| (pdu.event_id.clone(), pdu.clone())).collect();
        let from = [events[0].event_id.clone()];
        assert_eq!(reached(&mut found, &from, |pdu| &pdu.prev_events).len(), 3);
    }

    #[test]
    fn what_was_not_asked_for_is_not_reached() {
        let events = [event("a", &[]), event("b", &["a"]), event("z", &["a"])];
        let mut found: HashMap<_, _> =
            events.iter().map(|pdu| (pdu.event_id.clone(), pdu.clone())).collect();
        let got = reached(&mut found, &[events[1].event_id.clone()], |pdu| &pdu.prev_events);
        assert_eq!(got.len(), 2);
        assert!(found.contains_key(&events[2].event_id));
    }

    #[test]
    fn what_lacks_its_auth_events_goes_with_what_builds_on_it() {
        let events = vec![event("a", &[]), event("b", &["0"]), event("c", &["b", "a"])];
        let kept = closed(events.clone(), &HashSet::new());
        assert_eq!(kept.len(), 1);
        let known = [OwnedEventId::try_from("$0:x").unwrap()].into();
        assert_eq!(closed(events, &known).len(), 3);
    }
}
