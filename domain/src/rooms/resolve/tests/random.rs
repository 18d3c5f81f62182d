//! Random rooms: forks that split, quarrel and merge, each merge done in both ways.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    levels,
    world::{Act, CREATOR, Fork, World, act},
};

const VERSIONS: [&str; 9] = ["1", "2", "3", "6", "7", "8", "10", "11", "12"];
const USERS: [&str; 5] = [CREATOR, "@a:one", "@b:one", "@c:one", "@d:one"];
const FORKS_MAX: usize = 6;

/// What happens next, in numbers that [`take`] reads.
#[derive(Debug, Clone, Copy)]
struct Step {
    fork: usize,
    what: usize,
    sender: usize,
    target: usize,
    ts: u64,
}

fn any_step() -> impl Strategy<Value = Step> {
    (0..FORKS_MAX, 0..24_usize, 0..USERS.len(), 0..USERS.len(), 0..6_u64)
        .prop_map(|(fork, what, sender, target, ts)| Step { fork, what, sender, target, ts })
}

async fn take(world: &mut World, forks: &mut Vec<Fork>, step: Step) {
    let at = step.fork % forks.len();
    match step.what {
        0 | 1 if forks.len() < FORKS_MAX => forks.push(forks[at].clone()),
        2 if forks.len() > 1 => {
            let other = forks.swap_remove(at);
            let at = step.target % forks.len();
            forks[at] = world.merge(&[other, forks[at].clone()]).await;
        }
        3 => forks[at] = world.merge(forks).await,
        what => {
            let Some(act) = choose(world, &forks[at], what, step) else { return };
            world.send(&mut forks[at], act).await;
        }
    }
}

fn choose(world: &World, fork: &Fork, what: usize, step: Step) -> Option<Act<'static>> {
    let (sender, target) = (USERS[step.sender], USERS[step.target]);
    let member = |key, content| act("m.room.member", key, sender, content);
    let to = |membership: &str| json!({"membership": membership});
    let rules = |content: Value| act("m.room.join_rules", "", sender, content);
    let power = |power: i64| {
        let content = levels(world, fork, target, power);
        (target != CREATOR).then(|| act("m.room.power_levels", "", sender, content))
    };
    let chosen = match what {
        4..=7 => member(sender, to("join")),
        8 => member(sender, to("leave")),
        9 => member(target, to("ban")),
        10 => member(target, to("leave")),
        11 => member(target, to("invite")),
        12 => member(sender, json!({"membership": "join", "displayname": "x"})),
        13 => act("m.room.topic", "", sender, json!({"topic": sender})),
        14 => act("m.room.third_party_invite", "token", sender, json!({"display_name": "x"})),
        15 => rules(to_rule("invite")),
        16 => rules(to_rule("public")),
        17 => rules(to_rule("restricted")),
        18 => member(
            sender,
            json!({"membership": "join", "join_authorised_via_users_server": target}),
        ),
        19 => power(100)?,
        20 => power(50)?,
        21 => power(0)?,
        22 => {
            let mut content = world.content(fork, "m.room.power_levels", "")?;
            content["state_default"] = json!(step.ts * 10);
            act("m.room.power_levels", "", sender, content)
        }
        _ => act("m.room.name", "", sender, json!({"name": sender})),
    };
    Some(Act { ts: step.ts, ..chosen })
}

fn to_rule(rule: &str) -> Value {
    json!({"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": "!other:one"}]})
}

/// A room in which some have joined long ago, under levels that have changed since.
async fn populated(version: &str, joins: usize) -> (World, Fork) {
    let (mut world, mut base) = World::new(version).await;
    for n in 0..joins {
        let user = format!("@u{n}:one");
        assert!(world.member(&mut base, &user, &user, "join").await);
        if n % 3 == 0 {
            super::grant(&mut world, &mut base, USERS[1 + n % 4], 50 + n as i64 % 2).await;
        }
        if n % 4 == 0 {
            let user = USERS[1 + n / 4 % 4];
            world.member(&mut base, user, user, "join").await;
        }
    }
    (world, base)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn forks_become_what_they_become_as_whole_states(
        version in proptest::sample::select(VERSIONS.to_vec()),
        joins in 0..12_usize,
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut world, base) = populated(version, joins).await;
            let mut forks = vec![base.clone(), base];
            for step in steps {
                take(&mut world, &mut forks, step).await;
            }
            world.merge(&forks).await;
        });
    }
}
