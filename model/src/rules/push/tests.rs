use ruma::{
    push::{
        NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, RuleKind,
    },
    room_id, user_id,
};
use serde_json::{Value, json};

use super::{
    change::{
        AddRuleError, ChangeRuleError, Placement, add, remove, set_actions, set_enabled, to_json,
    },
    *,
};
use crate::{pdu::Pdu, rules::test_room::TestRoom};

const ME: &str = "@me:one";

fn rule(id: &str, enabled: bool, conditions: Value, actions: Value) -> Value {
    json!({
        "rule_id": id, "default": true, "enabled": enabled, "conditions": conditions,
        "actions": actions,
    })
}

fn is(key: &str, pattern: &str) -> Value {
    json!({"kind": "event_match", "key": key, "pattern": pattern})
}

/// The default rules as the specification v1.19 lists them.
fn defaults_of_the_specification() -> Value {
    let sound = |name: &str| json!({"set_tweak": "sound", "value": name});
    let highlight = json!({"set_tweak": "highlight"});
    let two = json!({"kind": "room_member_count", "is": "2"});
    let of_thread = |subscribed: bool| json!({"kind": "io.element.msc4306.thread_subscription", "subscribed": subscribed});
    let mentions_me = json!({
        "kind": "event_property_contains", "key": "content.m\\.mentions.user_ids", "value": ME,
    });
    let mentions_room =
        json!({"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": true});
    let may_notify = json!({"kind": "sender_notification_permission", "key": "room"});
    let is_edit = json!({
        "kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace",
    });
    let invites_me = json!([
        is("type", "m.room.member"),
        is("content.membership", "invite"),
        is("state_key", ME)
    ]);
    json!({
        "override": [
            rule(".m.rule.master", false, json!([]), json!([])),
            rule(".m.rule.suppress_notices", true, json!([is("content.msgtype", "m.notice")]), json!([])),
            rule(".m.rule.invite_for_me", true, invites_me, json!(["notify", sound("default")])),
            rule(".m.rule.member_event", true, json!([is("type", "m.room.member")]), json!([])),
            rule(".m.rule.is_user_mention", true, json!([mentions_me]),
                json!(["notify", sound("default"), highlight])),
            rule(".m.rule.is_room_mention", true, json!([mentions_room, may_notify]),
                json!(["notify", highlight])),
            rule(".m.rule.tombstone", true,
                json!([is("type", "m.room.tombstone"), is("state_key", "")]), json!(["notify", highlight])),
            rule(".m.rule.reaction", true, json!([is("type", "m.reaction")]), json!([])),
            rule(".m.rule.room.server_acl", true,
                json!([is("type", "m.room.server_acl"), is("state_key", "")]), json!([])),
            rule(".m.rule.suppress_edits", true, json!([is_edit]), json!([])),
        ],
        "content": [], "room": [], "sender": [],
        // Those of MSC4306.
        "postcontent": [
            rule(".io.element.msc4306.rule.unsubscribed_thread", true,
                json!([of_thread(false)]), json!([])),
            rule(".io.element.msc4306.rule.subscribed_thread", true,
                json!([of_thread(true)]), json!(["notify", sound("default")])),
        ],
        "underride": [
            rule(".m.rule.call", true, json!([is("type", "m.call.invite")]),
                json!(["notify", sound("ring")])),
            rule(".m.rule.encrypted_room_one_to_one", true,
                json!([two, is("type", "m.room.encrypted")]), json!(["notify", sound("default")])),
            rule(".m.rule.room_one_to_one", true,
                json!([two, is("type", "m.room.message")]), json!(["notify", sound("default")])),
            rule(".m.rule.message", true, json!([is("type", "m.room.message")]), json!(["notify"])),
            rule(".m.rule.encrypted", true, json!([is("type", "m.room.encrypted")]), json!(["notify"])),
        ],
    })
}

fn default_rules() -> Ruleset {
    Ruleset::server_default(user_id!("@me:one"))
}

/// (notify, highlight) for [`ME`], whose display name is "Me Myself".
fn outcome(rules: &Ruleset, event: &Pdu, member_count: u64) -> (bool, bool) {
    let levels = TestRoom::new("10").levels(json!({"users": {"@mod:one": 50}}));
    let room = PushRoom { member_count, power_levels: Some(&levels) };
    let me = Recipient {
        user: user_id!("@me:one"),
        display_name: Some("Me Myself"),
        thread_wanted: None,
    };
    let outcome = evaluate(rules, &PushEvent::new(event), room, me);
    (outcome.notify, outcome.highlight)
}

#[test]
fn what_is_said_of_a_thread_stands_between_the_rules_of_content_and_of_rooms() {
    let test_room = TestRoom::new("10");
    let plain = test_room.message("@a:one", json!({"body": "x"}));
    let mention = json!({"body": "x", "m.mentions": {"user_ids": [ME]}});
    let mention = test_room.message("@a:one", mention);
    let mut rules = default_rules();
    let user = user_id!("@me:one");
    let outcome = |rules: &Ruleset, event: &Pdu, thread_wanted: Option<bool>| {
        let room = PushRoom { member_count: 3, power_levels: None };
        let me = Recipient { user, display_name: None, thread_wanted };
        let outcome = evaluate(rules, &PushEvent::new(event), room, me);
        (outcome.notify, outcome.highlight, outcome.actions.len())
    };
    assert_eq!(outcome(&rules, &plain, None), (true, false, 1));
    assert_eq!(outcome(&rules, &plain, Some(true)), (true, false, 2), "with a sound");
    assert_eq!(outcome(&rules, &plain, Some(false)), (false, false, 0));
    assert!(outcome(&rules, &mention, Some(false)).1, "who is mentioned hears of it");
    let silent = NewSimplePushRule::new(plain.room_id.clone(), Vec::new());
    rules.insert(NewPushRule::Room(silent), None, None).unwrap();
    assert_eq!(outcome(&rules, &plain, None), (false, false, 0));
    assert_eq!(outcome(&rules, &plain, Some(true)), (true, false, 2));
    let subscribed = ".io.element.msc4306.rule.subscribed_thread";
    set_enabled(&mut rules, RuleKind::PostContent, subscribed, false).unwrap();
    assert_eq!(outcome(&rules, &plain, Some(true)), (false, false, 0), "the room's rule decides");
}

#[test]
fn the_default_rules_are_those_of_the_specification() {
    assert_eq!(to_json(&default_rules()), defaults_of_the_specification());
}

#[test]
fn votes_in_polls_are_silent_and_their_start_and_end_are_not() {
    let room = TestRoom::new("10");
    let rules = super::default_rules(user_id!("@me:one"));
    for (kind, notifies) in [("start", true), ("response", false), ("end", true)] {
        let kind = format!("org.matrix.msc3381.poll.{kind}");
        let event = room.event(json!({"type": kind, "sender": "@a:one", "content": {}}));
        for members in [2, 3] {
            assert_eq!(outcome(&rules, &event, members), (notifies, false), "{kind}");
        }
    }
    let at = |id: &str| rules.underride.get_index_of(id).unwrap();
    for what in ["start", "end"] {
        let rule = format!(".org.matrix.msc3930.rule.poll_{what}");
        assert!(at(&format!("{rule}_one_to_one")) < at(&rule), "the one with a sound is first");
    }
}

#[test]
fn the_default_rules_decide_as_they_should() {
    let room = TestRoom::new("10");
    let text = |sender: &str, extra: Value| {
        let mut content = json!({"msgtype": "m.text", "body": "hello"});
        for (key, value) in extra.as_object().unwrap() {
            content[key] = value.clone();
        }
        room.message(sender, content)
    };
    let event = |kind: &str, content: Value| {
        room.event(json!({"type": kind, "sender": "@a:one", "content": content}))
    };
    let edit = json!({"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}});
    for (event, expected) in [
        (text("@a:one", json!({})), (true, false)),
        (text(ME, json!({})), (false, false)),
        (text("@a:one", json!({"msgtype": "m.notice"})), (false, false)),
        (text("@a:one", json!({"m.mentions": {"user_ids": ["@x:one", ME]}})), (true, true)),
        (text("@a:one", json!({"m.mentions": {"user_ids": ["@x:one"]}})), (true, false)),
        (text("@mod:one", json!({"m.mentions": {"room": true}})), (true, true)),
        (text("@a:one", json!({"m.mentions": {"room": true}})), (true, false)),
        (text("@a:one", edit), (false, false)),
        (event("m.reaction", json!({})), (false, false)),
        (event("m.room.encrypted", json!({})), (true, false)),
        (event("m.call.invite", json!({})), (true, false)),
        (event("org.example", json!({})), (false, false)),
        (room.state("m.room.topic", "", "@a:one", json!({"topic": "x"})), (false, false)),
        (room.state("m.room.tombstone", "", "@a:one", json!({})), (true, true)),
        (room.member(ME, "@a:one", "invite"), (true, false)),
        (room.member("@b:one", "@a:one", "invite"), (false, false)),
        (room.member("@b:one", "@b:one", "join"), (false, false)),
    ] {
        assert_eq!(outcome(&default_rules(), &event, 3), expected, "{}", event.json());
    }
}

#[test]
fn the_number_of_members_decides_between_rules() {
    let room = TestRoom::new("10");
    let message = room.message("@a:one", json!({"body": "x"}));
    let rules = default_rules();
    let user = user_id!("@me:one");
    let me = Recipient { user, display_name: None, thread_wanted: None };
    for (member_count, actions) in [(2, 2), (3, 1), (u64::MAX, 1)] {
        let room = PushRoom { member_count, power_levels: None };
        let outcome = evaluate(&rules, &PushEvent::new(&message), room, me);
        assert_eq!(outcome.actions.len(), actions, "{member_count}");
    }
}

fn own_override(id: &str, condition: Value, actions: Value) -> NewPushRule {
    NewPushRule::Override(NewConditionalPushRule::new(
        id.to_owned(),
        serde_json::from_value(json!([condition])).unwrap(),
        serde_json::from_value(actions).unwrap(),
    ))
}

#[test]
fn every_condition_holds_where_the_specification_says() {
    let room = TestRoom::new("10");
    let event = room.message(
        "@a:one",
        json!({"body": "Hello, ME myself!", "n": 5, "list": ["a", 1, {}], "nil": null, "a.b": {"c\\d": "X"}}),
    );
    for (condition, holds) in [
        (is("content.body", "hello"), true),
        (is("content.body", "hell"), false),
        (is("content.n", "*"), false),
        (is("content.a\\.b.c\\\\d", "x"), true),
        (is("content.missing", "*"), false),
        (is("room_id", room.create.room_id.as_str()), true),
        (is("sender", "@A:*"), true),
        (json!({"kind": "contains_display_name"}), true),
        (json!({"kind": "room_member_count", "is": ">=3"}), true),
        (json!({"kind": "room_member_count", "is": "<3"}), false),
        (json!({"kind": "event_property_is", "key": "content.n", "value": 5}), true),
        (json!({"kind": "event_property_is", "key": "content.n", "value": "5"}), false),
        (json!({"kind": "event_property_is", "key": "content.nil", "value": null}), true),
        (json!({"kind": "event_property_contains", "key": "content.list", "value": 1}), true),
        (json!({"kind": "event_property_contains", "key": "content.list", "value": "b"}), false),
        (json!({"kind": "event_property_contains", "key": "content.n", "value": 5}), false),
        (json!({"kind": "sender_notification_permission", "key": "room"}), false),
        (json!({"kind": "org.example.unheard_of"}), false),
    ] {
        let mut rules = Ruleset::new();
        add(
            &mut rules,
            own_override("x", condition.clone(), json!(["notify"])),
            Placement::default(),
        )
        .unwrap();
        assert_eq!(outcome(&rules, &event, 3).0, holds, "{condition}");
    }
}

#[test]
fn kinds_are_asked_in_their_order_and_disabled_rules_never() {
    let room = TestRoom::new("10");
    let event = room.message("@a:one", json!({"body": "cake"}));
    let notify = || serde_json::from_value(json!(["notify"])).unwrap();
    let highlight =
        || serde_json::from_value(json!(["notify", {"set_tweak": "highlight"}])).unwrap();
    let mut rules = default_rules();
    let put = |rules: &mut Ruleset, rule| add(rules, rule, Placement::default()).unwrap();
    put(&mut rules, NewPushRule::Sender(NewSimplePushRule::new(user_id!("@a:one").into(), vec![])));
    assert_eq!(outcome(&rules, &event, 3), (false, false));
    let room_id = room.create.room_id.clone();
    put(&mut rules, NewPushRule::Room(NewSimplePushRule::new(room_id, notify())));
    assert_eq!(outcome(&rules, &event, 3), (true, false));
    let cake = NewPatternedPushRule::new("c".into(), "ca?e".into(), highlight());
    put(&mut rules, NewPushRule::Content(cake));
    assert_eq!(outcome(&rules, &event, 3), (true, true));
    set_enabled(&mut rules, RuleKind::Content, "c", false).unwrap();
    assert_eq!(outcome(&rules, &event, 3), (true, false));
    set_enabled(&mut rules, RuleKind::Override, ".m.rule.master", true).unwrap();
    assert_eq!(outcome(&rules, &event, 3), (false, false));
}

fn room_rule(id: &str) -> NewPushRule {
    NewPushRule::Override(NewConditionalPushRule::new(id.to_owned(), vec![], vec![]))
}

fn own_ids(rules: &Ruleset) -> Vec<&str> {
    rules.override_.iter().filter(|rule| !rule.default).map(|rule| rule.rule_id.as_str()).collect()
}

#[test]
fn a_rule_is_placed_where_it_is_asked_to_be() {
    let mut rules = default_rules();
    let mut put = |id: &str, before: Option<&str>, after: Option<&str>| {
        add(&mut rules, room_rule(id), Placement { before, after })
            .map(|()| own_ids(&rules).join(""))
    };
    assert_eq!(put("a", None, None).unwrap(), "a");
    assert_eq!(put("b", None, None).unwrap(), "ba");
    assert_eq!(put("c", None, Some("b")).unwrap(), "bca");
    assert_eq!(put("d", Some("b"), None).unwrap(), "dbca");
    assert_eq!(put("e", Some("a"), Some("d")).unwrap(), "dbcea");
    // Moving an old rule, forwards, backwards and nowhere.
    assert_eq!(put("d", None, Some("a")).unwrap(), "bcead");
    assert_eq!(put("a", Some("b"), None).unwrap(), "abced");
    assert_eq!(put("b", Some("d"), None).unwrap(), "acebd");
    assert_eq!(put("e", None, None).unwrap(), "acebd");
    assert_eq!(put("e", Some("e"), None).unwrap(), "acebd");
    assert_eq!(rules.override_[0].rule_id, ".m.rule.master");
    assert!(rules.override_.iter().skip(6).all(|rule| rule.default));
}

#[test]
fn impossible_rules_are_refused_and_change_nothing() {
    let mut rules = default_rules();
    let at = |before, after| Placement { before, after };
    for (rule, placement, error) in [
        (room_rule(".mine"), at(None, None), AddRuleError::ReservedId),
        (room_rule("a/b"), at(None, None), AddRuleError::InvalidId),
        (room_rule("a\\b"), at(None, None), AddRuleError::InvalidId),
        (room_rule("a"), at(Some("x"), None), AddRuleError::NeighbourNotFound("x".into())),
        (room_rule("a"), at(None, Some("x")), AddRuleError::NeighbourNotFound("x".into())),
        (
            room_rule("a"),
            at(None, Some(".m.rule.master")),
            AddRuleError::NeighbourReserved(".m.rule.master".into()),
        ),
    ] {
        assert_eq!(add(&mut rules, rule, placement), Err(error));
        assert_eq!(to_json(&rules), defaults_of_the_specification());
    }
    for n in 0..change::OWN_RULES_MAX {
        add(&mut rules, room_rule(&n.to_string()), Placement::default()).unwrap();
    }
    assert_eq!(
        add(&mut rules, room_rule("more"), Placement::default()),
        Err(AddRuleError::TooMany)
    );
    assert_eq!(add(&mut rules, room_rule("7"), Placement::default()), Ok(()));
}

#[test]
fn a_replaced_rule_stays_disabled_and_unknown_actions_are_kept() {
    let mut rules = default_rules();
    add(&mut rules, room_rule("a"), Placement::default()).unwrap();
    set_enabled(&mut rules, RuleKind::Override, "a", false).unwrap();
    let actions = json!(["dont_notify", "coalesce", {"set_tweak": "org.example", "value": 1}]);
    add(&mut rules, own_override("a", is("type", "x"), actions), Placement::default()).unwrap();
    let rule = rules.get(RuleKind::Override, "a").unwrap();
    assert_eq!((rule.enabled(), rule.actions().len()), (false, 3), "unknown actions are kept");
}

#[test]
fn own_rules_are_removed_and_the_servers_only_changed() {
    let mut rules = default_rules();
    add(&mut rules, room_rule("a"), Placement::default()).unwrap();
    assert_eq!(remove(&mut rules, RuleKind::Override, "a"), Ok(()));
    assert_eq!(remove(&mut rules, RuleKind::Override, "a"), Err(ChangeRuleError::NotFound));
    assert_eq!(
        remove(&mut rules, RuleKind::Override, ".m.rule.master"),
        Err(ChangeRuleError::ServerDefault)
    );
    assert_eq!(set_actions(&mut rules, RuleKind::Underride, ".m.rule.message", vec![]), Ok(()));
    let silent = TestRoom::new("10").message("@a:one", json!({"body": "x"}));
    assert_eq!(outcome(&rules, &silent, 3), (false, false));
    for kind in [RuleKind::Room, RuleKind::from("org.example")] {
        assert_eq!(
            set_enabled(&mut rules, kind.clone(), room_id!("!x:one").as_str(), true),
            Err(ChangeRuleError::NotFound)
        );
    }
}

#[test]
fn a_name_in_a_text_highlights_unless_the_event_says_whom_it_mentions() {
    let room = TestRoom::new("10");
    let rules = super::default_rules(user_id!("@me:one"));
    assert_eq!(rules.override_.get_index_of(".m.rule.contains_display_name"), Some(6));
    for (content, highlights) in [
        (json!({"body": "hello @me:one!"}), true),
        (json!({"body": "hello me myself"}), true),
        (json!({"body": "hello me myself", "m.mentions": {}}), false),
        (json!({"body": "hello all"}), false),
    ] {
        let event = room.message("@a:one", content.clone());
        assert_eq!(outcome(&rules, &event, 3), (true, highlights), "{content}");
    }
}
