//! Reading a registration: YAML, with what to do where it cannot be used.

use ruma::{ServerName, UserId};
use serde::Deserialize;
use url::Url;

use super::{Namespace, Namespaces, Service, Source, service::Told};

/// A token of fewer characters can be guessed.
const TOKEN_CHARS_MIN: usize = 8;

/// Why a registration cannot be used: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}{}: {problem}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct InvalidRegistration {
    /// The file, or that it came by a command.
    pub source_name: String,
    /// The line of the file, where it is one.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A registration as it is written. What is not known is left alone: bridges write more.
#[derive(Deserialize)]
struct File {
    id: String,
    #[serde(default)]
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    #[serde(default)]
    namespaces: NamespacesFile,
    #[serde(default)]
    rate_limited: Option<bool>,
    #[serde(default)]
    protocols: Option<Vec<String>>,
    #[serde(default)]
    receive_ephemeral: bool,
    #[serde(default)]
    push_ephemeral: bool,
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    unstable_ephemeral: bool,
    #[serde(default, rename = "org.matrix.msc3202")]
    encryption: bool,
}

#[derive(Deserialize, Default)]
struct NamespacesFile {
    #[serde(default)]
    users: Option<Vec<NamespaceFile>>,
    #[serde(default)]
    aliases: Option<Vec<NamespaceFile>>,
    #[serde(default)]
    rooms: Option<Vec<NamespaceFile>>,
}

#[derive(Deserialize)]
struct NamespaceFile {
    #[serde(default)]
    exclusive: bool,
    regex: String,
}

/// Reads a registration for the server `name`.
///
/// # Errors
/// A sentence with the line where it is known, and what to do.
pub fn parse(
    text: &str,
    source: Source,
    name: &ServerName,
) -> Result<Service, InvalidRegistration> {
    let invalid = |line: Option<usize>, problem: String| InvalidRegistration {
        source_name: source.to_string(),
        line,
        problem,
    };
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line() as usize);
        invalid(line, explained(error.without_snippet()))
    })?;
    let at = |key: &str, problem: String| invalid(line_of(text, key), format!("{key}: {problem}"));
    check_texts(&file).map_err(|(key, problem)| at(key, problem.to_owned()))?;
    let url = match file.url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => Some(parse_url(url).map_err(|problem| at("url", problem))?),
        None => None,
    };
    let sender = UserId::parse(format!("@{}:{name}", file.sender_localpart));
    let sender = sender.map_err(|_| {
        let problem =
            "is not the part of a user ID before the colon; write for example \"_irc_bot\"";
        at("sender_localpart", format!("{:?} {problem}", file.sender_localpart))
    })?;
    let namespaces = |of: &Option<Vec<NamespaceFile>>| {
        let all = of.iter().flatten().map(|namespace| {
            Namespace::new(&namespace.regex, namespace.exclusive).map_err(|problem| {
                let advice = "correct it; look-ahead and look-behind are not known here";
                let line = line_of_value(text, &namespace.regex);
                invalid(line, format!("namespaces: {problem}; {advice}"))
            })
        });
        all.collect::<Result<Vec<_>, _>>()
    };
    let namespaces = Namespaces {
        users: namespaces(&file.namespaces.users)?,
        aliases: namespaces(&file.namespaces.aliases)?,
        rooms: namespaces(&file.namespaces.rooms)?,
    };
    let told = Told {
        ephemeral: file.receive_ephemeral || file.push_ephemeral,
        unstable_ephemeral: file.unstable_ephemeral,
        encryption: file.encryption,
    };
    Ok(Service {
        url,
        as_token: Service::hash(&file.as_token),
        hs_token: file.hs_token,
        sender,
        namespaces,
        rate_limited: file.rate_limited.unwrap_or(true),
        protocols: file.protocols.unwrap_or_default(),
        told,
        id: file.id,
        source,
    })
}

fn check_texts(file: &File) -> Result<(), (&'static str, &'static str)> {
    if file.id.is_empty() || file.id.contains(['|', '/']) {
        return Err(("id", "must not be empty, nor have | or / in it; choose another"));
    }
    for (key, token) in [("as_token", &file.as_token), ("hs_token", &file.hs_token)] {
        if token.chars().count() < TOKEN_CHARS_MIN || !token.chars().all(|c| c.is_ascii_graphic()) {
            let problem = "must have at least 8 characters, without spaces; generate a random one";
            return Err((key, problem));
        }
    }
    Ok(())
}

fn parse_url(url: &str) -> Result<Url, String> {
    let good = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let good = good.filter(|url| url.has_host() && url.query().is_none());
    let advice = "write for example \"http://127.0.0.1:9000\", or null where nothing is to be sent";
    good.ok_or_else(|| format!("{url:?} is not the address of a service; {advice}"))
}

/// The parser's words, and what to do.
fn explained(error: &serde_saphyr::Error) -> String {
    let mut message = error.to_string();
    // It names the place too, which is told before.
    if let Some(at) = message.find(" at line ") {
        message.truncate(at);
    }
    let message = message.lines().next().unwrap_or_default().trim().to_owned();
    let message = message.trim_start_matches("error: ").to_owned();
    let advice = if message.contains("missing field") {
        "add it; the bridge's documentation tells how to generate a whole registration"
    } else {
        "correct the YAML there, or generate the registration again with the bridge"
    };
    format!("{message}; {advice}")
}

/// The line of the first mapping key of that name.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    };
    text.lines().position(is_key).map(|at| at + 1)
}

/// The line on which a value is written.
fn line_of_value(text: &str, value: &str) -> Option<usize> {
    text.lines().position(|line| line.contains(value)).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;

    const GOOD: &str = r#"
id: irc
url: http://127.0.0.1:9898
as_token: "as-token-of-irc"
hs_token: "hs-token-of-irc"
sender_localpart: ircbot
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
protocols: [irc]
namespaces:
  users:
    - exclusive: true
      regex: '@irc_.*'
  aliases: []
some.other.extension: [1, 2]
"#;

    fn read(text: &str) -> Result<Service, InvalidRegistration> {
        let source = Source::File("/etc/irc.yaml".into());
        parse(text, source, server_name!("test"))
    }

    #[test]
    fn a_registration_says_what_the_service_is() {
        let service = read(GOOD).unwrap();
        assert_eq!((service.id.as_str(), service.sender.as_str()), ("irc", "@ircbot:test"));
        assert!(service.has_user(user_id!("@irc_a:test")));
        assert!(service.has_user(user_id!("@ircbot:test")));
        assert!(!service.has_user(user_id!("@irc_a:elsewhere")), "only users of this server");
        assert!(!service.rate_limited);
        let told = Told { ephemeral: false, unstable_ephemeral: true, encryption: true };
        assert_eq!(service.told, told);
        let debug = format!("{service:?}");
        assert!(!debug.contains("token-of-irc"), "{debug}");
    }

    #[test]
    fn an_error_says_the_file_the_line_and_what_to_do() {
        let cases = [
            (GOOD.replace("id: irc\n", ""), None, "missing field `id`"),
            (GOOD.replace("id: irc", "id: [irc"), None, "correct the YAML"),
            (GOOD.replace("http://127.0.0.1:9898", "somewhere"), Some(3), "is not the address"),
            (GOOD.replace("\"as-token-of-irc\"", "short"), Some(4), "generate a random one"),
            (GOOD.replace("ircbot", "'irc:bot'"), Some(6), "part of a user ID before the colon"),
            (GOOD.replace("rate_limited: false", "rate_limited: perhaps"), Some(7), "correct"),
            (GOOD.replace("'@irc_.*'", "'@irc_('"), Some(14), "unclosed group"),
            (GOOD.replace("'@irc_.*'", "@irc_.*"), Some(14), "correct the YAML"),
        ];
        for (text, line, words) in cases {
            let error = read(&text).unwrap_err();
            let message = error.to_string();
            assert!(message.starts_with("/etc/irc.yaml"), "{message}");
            assert!(message.contains(words), "{message}");
            if line.is_some() {
                assert_eq!(error.line, line, "{message}");
            }
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_service_without_a_url_is_one_that_only_asks() {
        for url in ["url: null", "url: ''", ""] {
            let service = read(&GOOD.replace("url: http://127.0.0.1:9898", url)).unwrap();
            assert_eq!(service.url, None);
        }
    }
}
