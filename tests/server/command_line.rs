//! The binary as an operator meets it: it starts, stops, and says in a sentence what is wrong.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use tempfile::TempDir;

/// A folder with a configuration and, later, a database.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.configure("");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration: a free port, and what the test adds or sets anew.
    fn configure(&self, more: &str) {
        let mut lines = vec![
            "server_name = \"a.test\"".to_owned(),
            "port = 0".to_owned(),
            format!("database_path = {:?}", self.path("data")),
        ];
        for line in more.lines() {
            let key = line.split('=').next().unwrap_or_default();
            lines.retain(|old| !old.starts_with(key));
            lines.push(line.to_owned());
        }
        fs::write(self.path("conduit.toml"), lines.join("\n")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(arguments).arg("--config").arg(self.path("conduit.toml"));
        command.env_remove("MILLRACE_CONFIG").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a `serve` that does not start says, which must be one line.
    fn refusal(&self) -> String {
        let output = self.run(&["serve"]);
        assert!(!output.status.success());
        let errors = String::from_utf8(output.stderr).unwrap();
        let said: Vec<_> = errors.lines().filter(|line| line.starts_with("millrace: ")).collect();
        assert_eq!(said.len(), 1, "{errors}");
        said[0].to_owned()
    }
}

/// A running server, killed when dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    log: BufReader<ChildStderr>,
    started: String,
}

impl Running {
    fn start(place: &Place) -> Self {
        Self::start_by(place.command(&["serve"]))
    }

    fn start_by(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address, log, started: String::new() };
        loop {
            let mut line = String::new();
            let read = server.log.read_line(&mut line).unwrap();
            server.started.push_str(&line);
            assert_ne!(read, 0, "did not start: {}", server.started);
            if let Some((_, address)) = line.split_once("listening on http://") {
                server.address = address.split_whitespace().next().unwrap().parse().unwrap();
                return server;
            }
        }
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path}"), "")
    }

    /// Sends a request of this method and path, and returns the whole answer.
    fn ask(&self, request: &str, body: &str) -> String {
        self.ask_as("", request, body)
    }

    /// As [`Running::ask`], with an access token.
    fn ask_as(&self, token: &str, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             content-length: {length}\r\n"
        );
        write!(stream, "{head}connection: close\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a signal and returns the exit code with what was logged after the start.
    fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Overwrites the files of a closed database whose name begins so.
fn spoil(database: &Path, begins: &str) {
    let mut spoiled = 0;
    for entry in fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(begins) {
            fs::write(&path, b"not what was here before").unwrap();
            spoiled += 1;
        }
    }
    assert!(spoiled > 0);
}

#[test]
fn a_server_starts_answers_stops_and_starts_again() {
    let place = Place::new();
    for signal in ["INT", "TERM"] {
        let server = Running::start(&place);
        let answer = server.get("/_matrix/client/versions");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("v1.19"), "{answer}");
        let (code, log) = server.stop(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn a_registered_user_can_log_in_also_after_a_restart() {
    let place = Place::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.configure(&format!("port = {}\nregistration_shared_secret = \"s\"", free.port()));
    let server = Running::start(&place);
    let register = ["register-user", "--username", "pepper", "--password", "roni"];
    let output = place.run(&register);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "created @pepper:a.test\n");
    let login = r#"{"type":"m.login.password","password":"roni",
        "identifier":{"type":"m.id.user","user":"pepper"}}"#;
    let log_in = |server: &Running| server.ask("POST /_matrix/client/v3/login", login);
    assert!(log_in(&server).contains("\"user_id\":\"@pepper:a.test\""));
    server.stop("INT");
    let server = Running::start(&place);
    assert!(log_in(&server).contains("access_token"));
    let output = place.run(&register);
    assert!(String::from_utf8(output.stderr).unwrap().contains("the server refused"));
}

#[test]
fn what_the_server_holds_of_a_user_is_exported_whole_or_not_at_all() {
    let place = Place::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.configure(&format!("port = {}\nregistration_shared_secret = \"s\"", free.port()));
    let server = Running::start(&place);
    let register = ["register-user", "--username", "root", "--password", "p", "--admin"];
    assert!(place.run(&register).status.success());
    let login = r#"{"type":"m.login.password","identifier":{"type":"m.id.user","user":"root"},"password":"p"}"#;
    let token = json(&server.ask("POST /_matrix/client/v3/login", login));
    let token = token["access_token"].as_str().unwrap().to_owned();
    let export = |user: &str, token: &str| {
        let file = place.path("export.jsonl");
        let file = file.to_str().unwrap();
        let mut command = place.command(&["export-user-data", "--user", user, "--output", file]);
        command.env("MILLRACE_ACCESS_TOKEN", token).output().unwrap()
    };
    let refused = export("nobody", &token);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("there is no user @nobody:a.test"), "{said}");
    assert!(!export("root", "wrong").status.success());
    assert!(!place.path("export.jsonl").exists() && !place.path("export.jsonl.partial").exists());
    let done = export("root", &token);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = fs::read_to_string(place.path("export.jsonl")).unwrap();
    assert!(text.lines().count() > 3 && text.contains("@root:a.test"), "{text}");
    assert!(text.trim_end().ends_with(r#""kind":"end"}"#));
    assert!(!export("root", &token).status.success(), "the file is there already");
}

#[test]
fn a_database_in_use_is_a_sentence_and_stays_usable() {
    let place = Place::new();
    let server = Running::start(&place);
    let refusal = place.refusal();
    assert!(refusal.contains("in use by another process"), "{refusal}");
    assert!(server.get("/_matrix/client/versions").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_port_in_use_is_a_sentence() {
    let place = Place::new();
    let server = Running::start(&place);
    let other = Place::new();
    other.configure(&format!("port = {}", server.address.port()));
    let refusal = other.refusal();
    assert!(refusal.contains(&format!("port {}", server.address.port())), "{refusal}");
}

#[test]
fn another_server_name_is_refused_and_the_database_kept() {
    let place = Place::new();
    Running::start(&place).stop("TERM");
    place.configure("server_name = \"b.test\"");
    let refusal = place.refusal();
    assert!(refusal.contains("a.test") && refusal.contains("b.test"), "{refusal}");
    place.configure("");
    Running::start(&place);
}

#[test]
fn a_corrupt_database_is_a_sentence() {
    for begins in ["MANIFEST", "CURRENT"] {
        let place = Place::new();
        Running::start(&place).stop("TERM");
        spoil(&place.path("data"), begins);
        let refusal = place.refusal();
        assert!(refusal.contains("cannot be read") && refusal.contains("backup"), "{refusal}");
    }
}

#[test]
fn a_configuration_without_a_server_name_is_a_sentence() {
    let place = Place::new();
    place.configure("server_name = \"\"");
    assert!(place.refusal().contains("server_name: must be set"));
    assert!(!place.path("data").exists());
}

#[test]
fn an_unknown_option_is_a_warning_to_serve_and_an_error_to_check() {
    let place = Place::new();
    place.configure("allow_registraton = true");
    let hint = "unknown option allow_registraton; did you mean allow_registration?";
    let server = Running::start(&place);
    assert!(server.started.contains(hint), "{}", server.started);
    let output = place.run(&["config", "check"]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains(hint));
}

#[test]
fn the_sample_configuration_is_good() {
    let place = Place::new();
    let sample = place.run(&["config", "sample"]);
    fs::write(place.path("conduit.toml"), sample.stdout).unwrap();
    let output = place.run(&["config", "check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_generated_key_is_the_one_the_server_uses() {
    let place = Place::new();
    let key = place.path("signing.key");
    let generate = ["generate-key", "--output", key.to_str().unwrap()];
    assert!(place.run(&generate).status.success());
    place.configure(&format!("signing_key_path = {key:?}"));
    Running::start(&place).stop("TERM");
    fs::remove_file(&key).unwrap();
    assert!(place.refusal().contains("millrace generate-key"));
}

#[test]
fn registering_on_a_server_that_does_not_run_says_so() {
    let place = Place::new();
    place.configure("registration_shared_secret = \"s\"\nport = 1");
    let register = ["register-user", "--username", "a", "--password", "b"];
    let output = place.run(&register);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("does not run at 127.0.0.1:1"));
}

#[test]
fn a_full_disk_is_a_sentence() {
    let place = Place::new();
    let mount = format!("mount -t tmpfs -o size=16k none {:?} && exec \"$@\"", place.folder.path());
    let config = "server_name = \"a.test\"\nport = 0\n";
    let in_namespace = |script: &str, arguments: &[&str]| {
        let script = ["-rm", "sh", "-c", script, "sh"];
        Command::new("unshare").args(script).args(arguments).stdin(Stdio::null()).output()
    };
    if !in_namespace("true", &[]).is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: a small disk needs `unshare` and the permission to mount");
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("conduit.toml");
    fs::write(&file, format!("{config}database_path = {:?}", place.path("data"))).unwrap();
    let serve = [env!("CARGO_BIN_EXE_millrace"), "serve", "--config", file.to_str().unwrap()];
    let output = in_namespace(&mount, &serve).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("is full: make room"), "{errors}");
}

/// The JSON of an answer.
fn json(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_disk_that_fills_up_refuses_what_it_cannot_keep_and_loses_nothing() {
    const LIMIT_BLOCKS: u32 = 2_048; // of 512 or 1024 bytes, as the shell has it
    const SENDS_MAX: u32 = 200;
    let place = Place::new();
    place.configure("rate_limits.enabled = false\nallow_registration = true");
    let limit = format!("trap '' XFSZ; ulimit -f {LIMIT_BLOCKS}; exec \"$@\"");
    let program = env!("CARGO_BIN_EXE_millrace");
    let mut limited = Command::new("sh");
    limited.args(["-c", &limit, "sh", program, "serve", "--config"]);
    limited.arg(place.path("conduit.toml")).env_remove("MILLRACE_CONFIG");
    let server = Running::start_by(limited);
    let register = r#"{"username":"a","password":"pass","auth":{"type":"m.login.dummy"}}"#;
    let session = json(&server.ask("POST /_matrix/client/v3/register", register));
    let token = session["access_token"].as_str().unwrap();
    let room = json(&server.ask_as(token, "POST /_matrix/client/v3/createRoom", "{}"));
    let room = format!("/_matrix/client/v3/rooms/{}", room["room_id"].as_str().unwrap());
    let send = |server: &Running, n: u32| {
        let body = format!(r#"{{"body":"{}"}}"#, "x".repeat(40_000));
        server.ask_as(token, &format!("PUT {room}/send/m.room.message/{n}"), &body)
    };
    let mut acknowledged = Vec::new();
    let refusal = (0..SENDS_MAX).find_map(|n| {
        let answer = send(&server, n);
        if answer.starts_with("HTTP/1.1 200") {
            acknowledged.push(json(&answer)["event_id"].as_str().unwrap().to_owned());
            return None;
        }
        Some(answer)
    });
    let refusal = refusal.expect("the disk fills up");
    assert!(!acknowledged.is_empty());
    assert!(refusal.starts_with("HTTP/1.1 500"), "{refusal}");
    assert!(json(&refusal)["errcode"].is_string(), "{refusal}");
    assert!(send(&server, SENDS_MAX).starts_with("HTTP/1.1 500"), "nothing is written after that");
    let messages = format!("GET {room}/messages?dir=f&limit=1000");
    let readable = |server: &Running| -> Vec<String> {
        let page = json(&server.ask_as(token, &messages, ""));
        let events = page["chunk"].as_array().unwrap().iter();
        let said = events.filter(|event| event["type"] == "m.room.message");
        said.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(readable(&server), acknowledged, "what is there can be read");
    let (_, log) = server.stop("TERM");
    assert!(log.contains("writing to the database failed"), "{log}");
    let server = Running::start(&place);
    assert_eq!(readable(&server)[..acknowledged.len()], acknowledged);
    assert!(readable(&server).len() <= acknowledged.len() + 1, "one is in doubt: the refused one");
    let later = send(&server, SENDS_MAX + 1);
    assert!(later.starts_with("HTTP/1.1 200"), "{later}");
}
