use serde_json::{Value, json};

use super::*;
use crate::rules::test_room::{CREATOR, TestRoom, rules};

/// A public room of `version` with its creator joined.
fn room(version: &str) -> TestRoom {
    let mut room = TestRoom::new(version);
    room.set_member(CREATOR, "join");
    join_rule(&mut room, "public");
    room
}

fn join_rule(room: &mut TestRoom, rule: &str) {
    let event = room.state("m.room.join_rules", "", CREATOR, json!({"join_rule": rule}));
    room.set(event);
}

fn levels(room: &mut TestRoom, content: Value) {
    let event = room.state("m.room.power_levels", "", CREATOR, content);
    room.set(event);
}

fn allowed(room: &TestRoom, event: &Pdu) -> bool {
    check(event, rules(&room.version), |kind, key| room.lookup(kind, key)).is_ok()
}

const ALL: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

#[test]
fn in_every_version_members_speak_and_others_do_not() {
    for version in ALL {
        let mut room = room(version);
        room.set_member("@a:one", "join");
        room.set_member("@gone:one", "leave");
        for (sender, may) in [("@a:one", true), ("@gone:one", false), ("@never:one", false)] {
            assert_eq!(
                allowed(&room, &room.message(sender, json!({}))),
                may,
                "v{version} {sender}"
            );
        }
    }
}

#[test]
fn memberships_change_only_as_allowed() {
    for version in ALL {
        let mut room = room(version);
        for (user, membership) in [
            ("@in:one", "join"),
            ("@asked:one", "invite"),
            ("@out:one", "leave"),
            ("@bad:one", "ban"),
        ] {
            room.set_member(user, membership);
        }
        for (user, sender, membership, may) in [
            ("@new:one", "@new:one", "join", true),
            ("@bad:one", "@bad:one", "join", false),
            ("@new:one", "@in:one", "join", false),
            ("@new:one", "@in:one", "invite", true),
            ("@bad:one", "@in:one", "invite", false),
            ("@in:one", CREATOR, "invite", false),
            ("@new:one", "@out:one", "invite", false),
            ("@in:one", "@in:one", "leave", true),
            ("@asked:one", "@asked:one", "leave", true),
            ("@out:one", "@out:one", "leave", false),
            ("@in:one", CREATOR, "leave", true),
            (CREATOR, "@in:one", "leave", false),
            ("@bad:one", CREATOR, "leave", true),
            ("@bad:one", "@in:one", "leave", false),
            ("@in:one", CREATOR, "ban", true),
            ("@in:one", "@asked:one", "ban", false),
            ("@in:one", CREATOR, "knock", false),
            ("@in:one", "@in:one", "sleep", false),
        ] {
            let event = room.member(user, sender, membership);
            assert_eq!(allowed(&room, &event), may, "v{version}: {sender}: {user} {membership}");
        }
    }
}

#[test]
fn knocking_and_restricted_joins_begin_with_their_room_versions() {
    for (n, version) in ALL.into_iter().enumerate() {
        let mut room = room(version);
        for (rule, knock_since) in [("knock", 7), ("knock_restricted", 10)] {
            join_rule(&mut room, rule);
            let knock = room.member("@new:one", "@new:one", "knock");
            assert_eq!(allowed(&room, &knock), n + 1 >= knock_since, "v{version} {rule}");
        }
        for (rule, since) in [("restricted", 8), ("knock_restricted", 10)] {
            join_rule(&mut room, rule);
            for (authoriser, may) in [(CREATOR, true), ("@nobody:one", false)] {
                let content =
                    json!({"membership": "join", "join_authorised_via_users_server": authoriser});
                let join = room.state("m.room.member", "@new:one", "@new:one", content);
                assert_eq!(allowed(&room, &join), may && n + 1 >= since, "v{version} {rule}");
            }
        }
    }
}

#[test]
fn the_creator_joins_first_and_nobody_else() {
    for version in ALL {
        let room = TestRoom::new(version);
        let reference = match version {
            "1" | "2" => json!([[room.create.event_id, {"sha256": "x"}]]),
            _ => json!([room.create.event_id]),
        };
        let join = |user: &str| {
            room.event(json!({
                "type": "m.room.member", "state_key": user, "sender": user,
                "content": {"membership": "join"}, "prev_events": reference,
            }))
        };
        assert!(allowed(&room, &join(CREATOR)), "v{version}");
        assert!(!allowed(&room, &join("@a:one")), "v{version}");
    }
}

#[test]
fn redactions_are_a_matter_of_auth_in_versions_one_and_two_only() {
    for version in ALL {
        let mut room = room(version);
        room.set_member("@a:two", "join");
        let redact = |sender: &str, target: &str| {
            allowed(&room, &room.redaction(sender, target.try_into().unwrap()))
        };
        let special = version == "1" || version == "2";
        // The test room names its events `$n:one`.
        assert!(redact("@a:two", "$x:one"), "same domain as the redaction itself, v{version}");
        assert_eq!(redact("@a:two", "$x:three"), !special, "v{version}");
        assert!(redact(CREATOR, "$x:three"), "v{version}");
    }
}

#[test]
fn aliases_belong_to_their_server_up_to_version_five() {
    for (n, version) in ALL.into_iter().enumerate() {
        let room = room(version);
        let aliases = |sender: &str, key: &str| {
            let content = json!({"aliases": []});
            allowed(&room, &room.state("m.room.aliases", key, sender, content))
        };
        let special = n < 5;
        assert_eq!(aliases("@stranger:two", "two"), special, "v{version}");
        assert!(!aliases("@stranger:two", "one"), "v{version}");
        assert_eq!(aliases(CREATOR, "two"), !special, "v{version}");
        let keyless = json!({"type": "m.room.aliases", "sender": CREATOR, "content": {}});
        assert_eq!(allowed(&room, &room.event(keyless)), !special, "v{version}");
    }
}

#[test]
fn power_levels_may_be_strings_up_to_version_nine() {
    for (n, version) in ALL.into_iter().enumerate() {
        let room = room(version);
        let users = if n == 11 { json!({}) } else { json!({CREATOR: 100}) };
        for (ban, may) in [
            (json!(50), true),
            (json!("50"), n < 9),
            (json!(" +0050 "), n < 9),
            (json!("-5"), n < 9),
            (json!("fifty"), false),
            (json!("5.0"), false),
            (json!([]), false),
        ] {
            let content = json!({"users": users, "ban": ban});
            let event = room.state("m.room.power_levels", "", CREATOR, content);
            assert_eq!(allowed(&room, &event), may, "v{version} {ban}");
        }
    }
}

#[test]
fn nobody_gives_or_takes_more_power_than_they_have() {
    for version in ALL {
        let mut room = room(version);
        let own = if version == "12" { json!({}) } else { json!({CREATOR: 100}) };
        let with = |extra: Value| {
            let mut content = json!({
                "users": own, "events": {"m.room.name": 40}, "state_default": 50,
                "notifications": {"room": 60},
            });
            content["users"]["@mod:one"] = json!(50);
            content["users"]["@peer:one"] = json!(50);
            for (key, value) in extra.as_object().unwrap() {
                match value.as_object() {
                    Some(fields) => fields.iter().for_each(|(k, v)| content[key][k] = v.clone()),
                    None => content[key] = value.clone(),
                }
            }
            content
        };
        levels(&mut room, with(json!({})));
        for user in ["@mod:one", "@peer:one"] {
            room.set_member(user, "join");
        }
        let notifications_count = !["1", "2", "3", "4", "5"].contains(&version);
        for (change, may) in [
            (json!({"users": {"@new:one": 50}}), true),
            (json!({"users": {"@new:one": 51}}), false),
            (json!({"users": {"@mod:one": 20}}), true),
            (json!({"users": {"@peer:one": 20}}), false),
            (json!({"events": {"m.room.name": 50}}), true),
            (json!({"events": {"m.room.name": 51}}), false),
            (json!({"kick": 50}), true),
            (json!({"kick": 51}), false),
            (json!({"notifications": {"room": 50}}), !notifications_count),
        ] {
            let event = room.state("m.room.power_levels", "", "@mod:one", with(change.clone()));
            assert_eq!(allowed(&room, &event), may, "v{version} {change}");
        }
    }
}

#[test]
fn creators_are_not_listed_among_the_users_in_version_twelve() {
    let room = room("12");
    for (user, may) in [(CREATOR, false), ("@second:one", false), ("@a:one", true)] {
        let content = json!({"users": {user: 100}});
        let event = room.state("m.room.power_levels", "", CREATOR, content);
        assert_eq!(allowed(&room, &event), may, "{user}");
    }
}

#[test]
fn a_room_that_is_not_federated_is_for_one_server() {
    for version in ALL {
        let mut room = room(version);
        let mut create: Value = serde_json::from_str(room.create.json()).unwrap();
        create["content"]["m.federate"] = json!(false);
        room.set(Pdu::parse(&create.to_string(), rules(version)).unwrap());
        assert!(allowed(&room, &room.member("@a:one", "@a:one", "join")), "v{version}");
        assert!(!allowed(&room, &room.member("@a:two", "@a:two", "join")), "v{version}");
    }
}

#[test]
fn a_create_event_is_checked_for_version_creator_and_room() {
    let parse = |version: &str, change: &dyn Fn(&mut Value)| {
        let mut event: Value = serde_json::from_str(TestRoom::new(version).create.json()).unwrap();
        change(&mut event);
        let event = Pdu::parse(&event.to_string(), rules(version)).unwrap();
        check_auth_events(&event, rules(version), |_| None::<std::sync::Arc<Pdu>>).is_ok()
    };
    for version in ALL {
        assert!(parse(version, &|_| {}), "v{version}");
        assert!(
            !parse(version, &|event| event["content"]["room_version"] = json!("x")),
            "v{version}"
        );
        let with_creator_only = parse(version, &|event| {
            event["content"].as_object_mut().unwrap().remove("creator");
        });
        assert_eq!(with_creator_only, version == "11" || version == "12", "v{version}");
        if version != "12" {
            assert!(!parse(version, &|event| event["room_id"] = json!("!r:two")), "v{version}");
        }
    }
    assert!(!parse("12", &|event| event["room_id"] = json!("!r:one")));
    assert!(!parse("12", &|event| event["content"]["additional_creators"] = json!(["x"])));
}

#[test]
fn auth_events_must_be_the_expected_ones_of_the_same_room() {
    let room = room("10");
    let lookup = |id: &EventId| room.current.values().find(|event| event.event_id == id).cloned();
    let id = |kind: &str, key: &str| &room.current[&(kind.to_owned(), key.to_owned())].event_id;
    let create = id("m.room.create", "");
    let member = id("m.room.member", CREATOR);
    let rule = id("m.room.join_rules", "");
    let verdict = |auth: Value| {
        let event =
            room.event(json!({"type": "m.room.message", "sender": CREATOR, "auth_events": auth}));
        check_auth_events(&event, rules("10"), lookup).is_ok()
    };
    assert!(verdict(json!([create, member])));
    assert!(!verdict(json!([member])), "without the create event");
    assert!(!verdict(json!([create, member, member])), "twice the same");
    assert!(!verdict(json!([create, member, rule])), "one that is not needed");
    assert!(!verdict(json!([create, "$unknown"])), "an unknown one");
}

#[test]
fn the_auth_events_of_each_kind_of_event_are_selected() {
    for (version, with_create) in [("11", true), ("12", false)] {
        let select = |kind: &str, key: Option<&str>, content: Value| {
            let content = RawValue::from_string(content.to_string()).unwrap();
            let sender = "@a:one".try_into().unwrap();
            let places =
                auth_types_for_event(&kind.into(), sender, key, &content, rules(version)).unwrap();
            let mut places: Vec<String> = places
                .into_iter()
                .map(|(kind, key)| format!("{} {key}", kind.to_string().replace("m.room.", "")))
                .collect();
            places.sort();
            places
        };
        let expect = |mut places: Vec<&'static str>| {
            if with_create {
                places.push("create ");
            }
            places.sort_unstable();
            places
        };
        let own = "member @a:one";
        assert_eq!(select("m.room.message", None, json!({})), expect(vec!["power_levels ", own]));
        assert_eq!(
            select("m.room.member", Some("@b:one"), json!({"membership": "invite"})),
            expect(vec!["power_levels ", own, "member @b:one", "join_rules "])
        );
        assert_eq!(
            select(
                "m.room.member",
                Some("@a:one"),
                json!({"membership": "join", "join_authorised_via_users_server": "@c:one"})
            ),
            expect(vec!["power_levels ", own, "member @c:one", "join_rules "])
        );
        assert!(select("m.room.create", Some(""), json!({})).is_empty());
    }
}
