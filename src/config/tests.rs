//! The layers, what is refused and how, and that the sample tells the truth.

use std::path::PathBuf;

use figment::{Figment, providers::Serialized};

use super::{
    Config, ConfigError, SAMPLE, UnknownKey,
    load::{load, parse},
};

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, Figment::new()).map(|loaded| loaded.config)
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn defaults() -> Config {
    let mut config = Config::default();
    config.server.server_name = "example.org".to_owned();
    config
}

/// The sample with the options that it only shows switched on.
fn sample_with_everything() -> String {
    let shown = |line: &str| {
        let option = line.strip_prefix('#')?;
        option.starts_with(|c: char| c.is_ascii_lowercase()).then(|| option.to_owned())
    };
    let lines: Vec<String> = SAMPLE
        .lines()
        // Shown again, with an entry.
        .filter(|line| {
            !matches!(*line, "terms = []" | "old_signing_keys = []" | "sso_providers = []")
        })
        .map(|line| shown(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    lines.join("\n")
}

#[test]
fn the_sample_has_the_defaults() {
    let loaded = parse(SAMPLE, Figment::new()).unwrap();
    assert_eq!(loaded.config, defaults());
    assert_eq!(loaded.unknown, []);
}

#[test]
fn the_sample_has_every_option() {
    let text = sample_with_everything();
    let full = parse(&text, Figment::new()).unwrap();
    assert_eq!(full.unknown, []);
    let (known, shown) = (super::load::known_keys(), super::load::keys_of(&text));
    let missing: Vec<_> = known.difference(&shown).collect();
    assert!(missing.is_empty(), "not in conduit.toml: {missing:?}");
    assert_eq!(full.config.registration.terms[0].id, "privacy_policy");
    assert_eq!(full.config.federation.old_signing_keys[0].id.as_str(), "ed25519:a_abcd");
}

#[test]
fn keys_are_taken_with_and_without_the_global_table() {
    let config = read("server_name = 'a.example'\nport = 1\n[well_known]\nserver = 'b:2'").unwrap();
    let global =
        read("[global]\nserver_name = 'a.example'\nport = 1\n[global.well_known]\nserver = 'b:2'");
    assert_eq!(config, global.unwrap());
    assert_eq!(config.well_known.server.as_deref(), Some("b:2"));
}

#[test]
fn a_file_of_the_conduit_family_works() {
    let text = r#"
        [global]
        server_name = "your.server.name"
        database_path = "/var/lib/matrix-conduit/"
        database_backend = "rocksdb"
        port = [6167, 6168]
        max_request_size = 20_000_000 # in bytes
        allow_registration = true
        registration_token = "secret"
        allow_federation = true
        allow_check_for_updates = true
        trusted_servers = ["matrix.org"]
        address = ["127.0.0.1", "::1"]
    "#;
    let loaded = parse(text, Figment::new()).unwrap();
    let config = loaded.config;
    assert_eq!(config.database.database_path, PathBuf::from("/var/lib/matrix-conduit/"));
    assert_eq!(config.registration.registration_token.as_deref(), Some("secret"));
    assert_eq!(config.server.listen_on().count(), 4);
    let unknown: Vec<_> = loaded.unknown.into_iter().map(|unknown| unknown.key).collect();
    assert_eq!(unknown, ["allow_check_for_updates"]);
}

#[test]
#[expect(clippy::result_large_err, reason = "the closure's type is figment's")]
fn the_environment_goes_above_the_file() {
    figment::Jail::expect_with(|jail| {
        jail.create_file("c.toml", "server_name = 'file.example'\nport = 1")?;
        jail.set_env("MILLRACE_PORT", "2");
        jail.set_env("MILLRACE_WELL_KNOWN__CLIENT", "https://a.example");
        jail.set_env("MILLRACE_RATE_LIMITS__LOGIN__BURST", "7");
        jail.set_env("MILLRACE_CONFIG", "c.toml");
        let loaded = load(Some("c.toml".as_ref())).unwrap();
        let config = loaded.config;
        assert_eq!(config.server.server_name, "file.example");
        assert_eq!(config.server.port.as_slice(), [2]);
        assert_eq!(config.well_known.client.as_deref(), Some("https://a.example"));
        assert_eq!((config.rate_limits.login.burst, config.rate_limits.login.per_second), (7, 0.2));
        assert_eq!(loaded.unknown, []);
        Ok(())
    });
}

#[test]
fn an_unknown_key_is_reported_with_the_nearest_known_one() {
    let text =
        "server_name = 'a.example'\nregistation_token = 'x'\nzzz = 1\n[well_known]\ncleint = ''";
    let unknown = parse(text, Figment::new()).unwrap().unknown;
    let reports: Vec<String> = unknown.iter().map(UnknownKey::to_string).collect();
    assert_eq!(
        reports,
        [
            "unknown option registation_token; did you mean registration_token?",
            "unknown option well_known.cleint; did you mean well_known.client?",
            "unknown option zzz",
        ]
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named_by_its_key() {
    let message = refusal("server_name = 'a.example'\nport = 'eight'");
    assert!(message.starts_with("port: "), "{message}");
    let message = refusal("server_name = 'a.example'\n[rate_limits.login]\nburst = -1");
    assert!(message.starts_with("rate_limits.login.burst: "), "{message}");
    assert!(refusal("server_name = ").contains("TOML"));
}

#[test]
fn every_bad_value_is_named_by_its_key() {
    let cases = [
        ("server_name", "server_name = ''"),
        ("server_name", "server_name = 'not a name'"),
        ("max_request_size", "server_name = 'a'\nmax_request_size = 1"),
        ("default_room_version", "server_name = 'a'\ndefault_room_version = '13'"),
        ("registration_token", "server_name = 'a'\nregistration_token = ''"),
        ("login_token_lifetime_s", "server_name = 'a'\nlogin_token_lifetime_s = 0"),
        ("well_known.client", "server_name = 'a'\n[well_known]\nclient = 'a.example'"),
        (
            "well_known.policy_server_key",
            "server_name = 'a'\n[well_known]\npolicy_server_key = 'AAAA'",
        ),
        ("rate_limits.join", "server_name = 'a'\n[rate_limits.join]\nper_second = 0.0"),
        ("password_hash.iterations", "server_name = 'a'\n[password_hash]\niterations = 0"),
        ("limits.json_depth_max", "server_name = 'a'\n[limits]\njson_depth_max = 1000"),
        ("push.expire_s", "server_name = 'a'\n[push]\nmail_interval_s = 86400"),
        ("log", "server_name = 'a'\nlog = 'a=b=c'"),
        (
            "sso_providers[0].id",
            "server_name = 'a'\nwell_known.client = 'https://a'\nsso_providers = [{ id = 'a b', name = 'A', issuer = 'https://a', client_id = 'x' }]",
        ),
        (
            "well_known.client",
            "server_name = 'a'\nsso_providers = [{ id = 'a', name = 'A', issuer = 'https://a', client_id = 'x' }]",
        ),
        ("recaptcha_private_key", "server_name = 'a'\nrecaptcha_public_key = 'a'"),
        ("well_known.client", "server_name = 'a'\n[email]\nsmtp_host = 'm'\nfrom = 'a@b.c'"),
        ("email.from", "server_name = 'a'\nwell_known.client = 'https://a'\nemail.smtp_host = 'm'"),
        ("email.smtp_password", "server_name = 'a'\n[email]\nsmtp_user = 'm'"),
        ("registrations_require_3pid", "server_name = 'a'\nregistrations_require_3pid = ['email']"),
        ("msisdn_validation_url", "server_name = 'a'\nmsisdn_validation_url = 'id.example'"),
    ];
    for (key, text) in cases {
        let message = refusal(text);
        assert!(message.starts_with(&format!("{key}: ")), "{text:?} gave {message:?}");
    }
}

#[test]
fn all_bad_values_are_told_at_once() {
    assert_eq!(refusal("max_request_size = 1").lines().count(), 2);
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Some("/nowhere/conduit.toml".as_ref())).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/conduit.toml cannot be read"), "{error}");
}

#[test]
fn a_source_above_the_file_replaces_single_keys_of_a_table() {
    let above = Figment::from(Serialized::default("well_known.server", "b:1"));
    let text = "server_name = 'a'\n[well_known]\nclient = 'https://a'\nserver = 'a:1'";
    let config = parse(text, above).unwrap().config;
    assert_eq!(config.well_known.server.as_deref(), Some("b:1"));
    assert_eq!(config.well_known.client.as_deref(), Some("https://a"));
}
