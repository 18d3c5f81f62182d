use super::*;

#[test]
fn the_sample_shows_every_option_with_its_default() {
    // What is commented out is an option or an app; as TOML it is what comes after `#`.
    let text: String = SAMPLE
        .lines()
        .filter_map(|line| match line.strip_prefix('#') {
            Some(option) if option.starts_with(' ') || option.is_empty() => None,
            Some(option) => Some(option),
            None => Some(line),
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let shown = parse(&text).unwrap();
    let default = Config::default();
    assert_eq!(shown.address, default.address);
    assert_eq!(shown.log, default.log);
    assert_eq!(shown.log_format, default.log_format);
    assert_eq!(shown.calls_max, default.calls_max);
    assert_eq!(shown.answer_within_s, default.answer_within_s);
    assert_eq!(shown.request_timeout_s, default.request_timeout_s);
    assert_eq!(shown.retry_for_s, default.retry_for_s);
    assert_eq!(shown.shutdown_s, default.shutdown_s);
    assert_eq!(shown.apps.len(), 3);
    let common = Common::default();
    for app in shown.apps.values() {
        assert_eq!(app.common.inflight_request_limit, common.inflight_request_limit);
        assert_eq!(app.common.queue_max, common.queue_max);
        assert_eq!(app.common.badge, common.badge);
        assert_eq!(app.common.event_id_only, common.event_id_only);
        assert_eq!(app.common.priority, common.priority);
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, expected) in [
        ("adress = \"127.0.0.1:1\"", "adress"),
        ("calls_max = \"many\"", "calls_max"),
        ("[apps.a]\ntype = \"mms\"", "apps.a: type must be"),
        ("[apps.a]\ntype = \"apns\"\nkeyfil = \"x\"", "keyfil"),
        ("[apps.a]\ntype = \"apns\"\nkeyfile = \"x\"", "apps.a.keyfile: needs key_id"),
        ("[apps.a]\ntype = \"fcm\"", "service_account_file"),
        ("[apps.a]\ntype = \"fcm\"\nservice_account_file = \"x\"\npriority = \"urgent\"", "urgent"),
        ("allowed_addresses = [\"10.0.0.0/33\"]", "10.0.0.0/33 is no address"),
        ("", "apps: there is none"),
        ("a = = b", "invalid"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}
