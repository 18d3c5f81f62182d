//! The servers, their users, and what happens to them.

use std::{sync::Arc, time::Duration};

use millrace_domain::Rulebook;
use millrace_model::rules::room_version;
use millrace_test_support::{Answer, Client, Network, TestServer};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

use crate::{
    census::{Census, Holding, difference, holding},
    engine::{Disk, Mounted},
    sabotage::Sabotage,
    time,
    weather::{Exposed, Sky, Weather},
};

const SERVERS: usize = 5;
const ROOMS: usize = 2;
/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pages of history that a user reads.
const PAGES_MAX: usize = 30;
/// Simulated time of one such round.
const ROUND: Duration = Duration::from_secs(60);

/// A server that may be down, and its two users.
struct Node {
    name: String,
    disk: Disk,
    mounted: Arc<Mounted>,
    /// By what it judges.
    rules: Rulebook,
    /// One commit in so many is lost; 0 for none.
    loses: i64,
    server: Option<TestServer>,
    /// Is in every room from the start, and stays.
    resident: Client,
    /// Comes and goes, and is thrown out.
    guest: Client,
}

/// All servers of a run.
pub struct World {
    network: Network,
    sky: Sky,
    random: StdRng,
    nodes: Vec<Node>,
    rooms: Vec<String>,
    census: Census,
    sabotage: Sabotage,
    /// What users were told that they have sent: room, server, event.
    acknowledged: Vec<(String, usize, OwnedEventId)>,
}

impl World {
    /// Five servers and two rooms in which each has a user.
    pub async fn new(seed: u64, sabotage: Sabotage) -> Self {
        let network = Network::default();
        tokio::spawn(time::pass(network.clock.clone()));
        let sky = Sky::new(seed);
        let mut nodes = Vec::new();
        for n in 0..SERVERS {
            nodes.push(Node::start(format!("s{n}"), &network, &sky).await);
        }
        let random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let (rooms, census) = (Vec::new(), Census::default());
        let acknowledged = Vec::new();
        let mut world = Self { network, sky, random, nodes, rooms, census, sabotage, acknowledged };
        for n in 0..ROOMS {
            world.make_room(n).await;
        }
        world
    }

    async fn make_room(&mut self, creator: usize) {
        let versions = self.sabotage.versions();
        let version = versions.choose(&mut self.random).expect("not empty");
        let users = self.nodes.iter().enumerate().filter(|(n, _)| *n != creator);
        let mut levels: serde_json::Map<String, Value> =
            users.map(|(_, node)| (node.resident.user().to_string(), json!(60))).collect();
        if *version != "12" {
            levels.insert(self.nodes[creator].resident.user().to_string(), json!(100));
        }
        let body = json!({
            "preset": "public_chat",
            "room_version": version,
            "power_level_content_override": {
                "users": levels,
                "events": { "m.room.power_levels": 50, "m.room.topic": 50 },
            },
        });
        let made = self.nodes[creator].resident.post("/_matrix/client/v3/createRoom", body).await;
        let room = made.ok()["room_id"].as_str().expect("a room ID").to_owned();
        let via = self.nodes[creator].name.clone();
        for (n, node) in self.nodes.iter().enumerate() {
            if n != creator {
                join(&node.resident, &room, &via).await.ok();
            }
        }
        self.rooms.push(room);
    }

    /// Users do `deeds` things while the network fails and servers crash.
    pub async fn storm(&mut self, deeds: usize) {
        self.begin_sabotage().await;
        self.sky.set(Weather::STORM);
        for _ in 0..deeds {
            match self.random.random_range(0..100) {
                0..4 => self.crash().await,
                4..8 => self.restart_one().await,
                8..14 => self.cut(),
                14..20 => self.mend(),
                _ => self.deed().await,
            }
            let pause = Duration::from_millis(self.random.random_range(0..3000));
            tokio::time::sleep(pause).await;
        }
    }

    /// Lets the last server do wrong what is to be done wrong: only now, when it is in the rooms.
    async fn begin_sabotage(&mut self) {
        let node = self.nodes.last_mut().expect("there are servers");
        match self.sabotage {
            Sabotage::None => {}
            Sabotage::LosesCommits(one_in) => node.lose_one_in(one_in),
            Sabotage::AuthRule | Sabotage::ResolutionOrder => {
                node.rules = self.sabotage.rules();
                node.die(&self.network);
                node.restart(&self.network, &self.sky).await;
            }
        }
    }

    /// Keeps in mind what a user was told to have sent.
    fn note(&mut self, room: &str, node: usize, answer: &Answer) {
        let sent = answer.body["event_id"].as_str().filter(|_| answer.status.is_success());
        if let Some(event) = sent.and_then(|event| OwnedEventId::try_from(event).ok()) {
            self.acknowledged.push((room.to_owned(), node, event));
        }
    }

    fn two(&mut self) -> (String, String) {
        let mut names = self.nodes.iter().map(|node| node.name.clone());
        let picked = rand::seq::index::sample(&mut self.random, SERVERS, 2);
        let all: Vec<_> = names.by_ref().collect();
        (all[picked.index(0)].clone(), all[picked.index(1)].clone())
    }

    fn cut(&mut self) {
        let (one, other) = self.two();
        self.network.cut(&one, &other);
        self.census.cuts += 1;
    }

    fn mend(&mut self) {
        let (one, other) = self.two();
        self.network.mend(&one, &other);
    }

    /// Kills a server before one of its next writes.
    async fn crash(&mut self) {
        let n = self.random.random_range(0..SERVERS);
        let batches = self.random.random_range(0..6);
        if self.nodes[n].server.is_none() {
            return;
        }
        self.nodes[n].mounted.kill_after(batches);
        let room = self.rooms[0].clone();
        for _ in 0..=batches {
            let answer = say(&self.nodes[n].resident, &room, "before the crash").await;
            self.note(&room, n, &answer);
        }
        self.nodes[n].die(&self.network);
        self.census.crashes += 1;
    }

    async fn restart_one(&mut self) {
        let down = self.nodes.iter().position(|node| node.server.is_none());
        if let Some(down) = down {
            self.nodes[down].restart(&self.network, &self.sky).await;
        }
    }

    async fn deed(&mut self) {
        let node = self.random.random_range(0..SERVERS);
        let other = self.random.random_range(0..SERVERS);
        let room = self.rooms.choose(&mut self.random).expect("there are rooms").clone();
        let what = self.random.random_range(0..100);
        let word = format!("{what} {}", self.random.random_range(0..1000));
        if self.nodes[node].server.is_none() {
            return;
        }
        let via = self.nodes[other].name.clone();
        let guest = self.nodes[other].guest.user().to_string();
        let Node { resident, guest: own_guest, .. } = &self.nodes[node];
        let path = |rest: &str| format!("/_matrix/client/v3/rooms/{room}/{rest}");
        let of_guest = json!({ "user_id": guest });
        let done = async {
            match what {
                0..35 => say(resident, &room, &word).await,
                35..45 => say(own_guest, &room, &word).await,
                45..55 => resident.put(&path("state/m.room.topic"), json!({ "topic": word })).await,
                55..60 => set_level(resident, &room, &guest, what % 40).await,
                60..70 => join(own_guest, &room, &via).await,
                70..75 => own_guest.post(&path("leave"), json!({})).await,
                75..82 => resident.post(&path("invite"), of_guest).await,
                82..88 => resident.post(&path("kick"), of_guest).await,
                88..94 => resident.post(&path("ban"), of_guest).await,
                _ => resident.post(&path("unban"), of_guest).await,
            }
        };
        self.census.deeds.1 += 1;
        if let Ok(answer) = tokio::time::timeout(PATIENCE, done).await {
            self.census.deeds.0 += usize::from(answer.status.is_success());
            self.note(&room, node, &answer);
        }
    }

    /// Ends the storm; every server's user speaks, until all hold the same. What they had, or what
    /// they cannot agree on.
    pub async fn heal(mut self, rounds_max: usize) -> Result<Census, String> {
        self.sky.set(Weather::default());
        for one in 0..SERVERS {
            for other in 0..one {
                self.network.mend(&format!("s{one}"), &format!("s{other}"));
            }
        }
        for node in &mut self.nodes {
            node.lose_one_in(0);
            node.restart(&self.network, &self.sky).await;
        }
        let mut disagreement = String::new();
        for round in 1..=rounds_max {
            self.census.rounds = round;
            for room in &self.rooms {
                for node in &self.nodes {
                    drop(say(&node.resident, room, &format!("round {round}")).await);
                }
            }
            tokio::time::sleep(ROUND).await;
            self.read_all_history().await;
            match self.compare().await? {
                None => return Ok(self.census),
                Some(found) => disagreement = found,
            }
        }
        Err(format!("no agreement: {disagreement}; {}", self.census))
    }

    /// Residents page back to the beginning, so that servers fill in what they lack.
    async fn read_all_history(&self) {
        for room in &self.rooms {
            for node in &self.nodes {
                let mut from = String::new();
                for _ in 0..PAGES_MAX {
                    let path =
                        format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100{from}");
                    let page = node.resident.get(&path).await;
                    let Some(end) = page.body["end"].as_str() else { break };
                    from = format!("&from={end}");
                }
            }
        }
    }

    async fn compare(&mut self) -> Result<Option<String>, String> {
        let (mut merges, mut events, mut rejected, mut soft_failed) = (0, 0, 0, 0);
        let mut conflicts = 0;
        let mut disagreement = None;
        for room in &self.rooms {
            let id = OwnedRoomId::try_from(room.as_str()).map_err(|error| error.to_string())?;
            let mut held: Vec<Holding> = Vec::new();
            for node in &self.nodes {
                let server = node.server.as_ref().ok_or("a server is down")?;
                let found = holding(&server.env, &id).await.map_err(|error| error.to_string())?;
                held.push(found.ok_or_else(|| format!("{} does not have {room}", node.name))?);
            }
            for (n, other) in held.iter().enumerate().skip(1) {
                if let Some(found) = difference(&held[0], other) {
                    disagreement = Some(format!("{room}, s0 and s{n}: {found}"));
                }
            }
            for (_, n, event) in self.acknowledged.iter().filter(|(of, ..)| of == room) {
                if !held[*n].accepted.contains_key(event) {
                    disagreement =
                        Some(format!("{room}: s{n} has acknowledged {event}, and lost it"));
                }
            }
            merges += held[0].merges;
            conflicts += held[0].conflicts;
            events += held.iter().map(|holding| holding.accepted.len()).max().unwrap_or(0);
            rejected += held.iter().map(|holding| holding.rejected).sum::<usize>();
            soft_failed += held.iter().map(|holding| holding.soft_failed).sum::<usize>();
        }
        let census = &mut self.census;
        (census.merges, census.conflicts, census.events) = (merges, conflicts, events);
        (census.rejected, census.soft_failed) = (rejected, soft_failed);
        Ok(disagreement)
    }
}

impl Node {
    async fn start(name: String, network: &Network, sky: &Sky) -> Self {
        let disk = Disk::default();
        let mounted = disk.mount();
        let rules: Rulebook = room_version::rules;
        let server = serve((&name, rules), &mounted, network, sky).await;
        let (resident, guest) = (server.register("resident").await, server.register("guest").await);
        Self { name, disk, mounted, rules, loses: 0, server: Some(server), resident, guest }
    }

    fn lose_one_in(&mut self, commits: i64) {
        self.loses = commits;
        self.mounted.lose_one_in(commits);
    }

    fn die(&mut self, network: &Network) {
        let Some(server) = self.server.take() else { return };
        self.mounted.kill_after(0);
        network.leave(&self.name);
        server.shutdown.request();
        self.disk.lose_unsynced();
    }

    async fn restart(&mut self, network: &Network, sky: &Sky) {
        if self.server.is_some() {
            return;
        }
        self.mounted = self.disk.mount();
        self.mounted.lose_one_in(self.loses);
        let server = serve((&self.name, self.rules), &self.mounted, network, sky).await;
        self.resident = self.resident.on(&server);
        self.guest = self.guest.on(&server);
        self.server = Some(server);
    }
}

async fn serve(
    (name, rules): (&str, Rulebook),
    mounted: &Arc<Mounted>,
    network: &Network,
    sky: &Sky,
) -> TestServer {
    let mut config = TestServer::config();
    config.server.server_name = name.to_owned();
    let transport = Arc::new(Exposed { link: network.transport(name), sky: sky.clone() });
    let clock = network.clock.clone();
    let server = TestServer::start_by(rules, mounted.clone(), &config, clock, transport).await;
    network.enter(name, server.router.clone());
    server
}

async fn join(client: &Client, room: &str, via: &str) -> Answer {
    let path = format!("/_matrix/client/v3/join/{room}?server_name={via}&via={via}");
    client.post(&path, json!({})).await
}

async fn say(client: &Client, room: &str, text: &str) -> Answer {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t{n}");
    client.put(&path, json!({ "msgtype": "m.text", "body": text })).await
}

async fn set_level(client: &Client, room: &str, user: &str, level: i64) -> Answer {
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.power_levels/");
    let found = client.get(&path).await;
    if !found.status.is_success() {
        return found;
    }
    let mut levels = found.ok();
    levels["users"][user] = json!(level);
    client.put(&path, levels).await
}
