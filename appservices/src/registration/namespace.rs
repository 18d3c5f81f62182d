//! Namespaces: regular expressions over identifiers.

use regex::Regex;

/// Characters with a meaning in regular expressions.
const META: &str = r"\.+*?()|[]{}^$";

/// Identifiers that match a regular expression from their beginning on. What follows the match may be
/// anything, as services expect from other homeservers.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Whether nobody else may make what is in it.
    pub exclusive: bool,
    regex: Regex,
    text: String,
}

/// What a service is interested in.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    /// Users of this server.
    pub users: Vec<Namespace>,
    /// Aliases of rooms.
    pub aliases: Vec<Namespace>,
    /// Rooms, by their IDs.
    pub rooms: Vec<Namespace>,
}

impl Namespace {
    /// A namespace of what matches `text`.
    ///
    /// # Errors
    /// Why it is no regular expression, in words.
    pub fn new(text: &str, exclusive: bool) -> Result<Self, String> {
        let regex = Regex::new(&format!("^(?:{text})")).map_err(|error| match error {
            regex::Error::Syntax(_) => syntax_error(text),
            other => other.to_string(),
        })?;
        Ok(Self { exclusive, regex, text: text.to_owned() })
    }

    /// The regular expression.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether an identifier is in it.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// What everything in it begins with, as far as that is easily told.
    #[must_use]
    pub(crate) fn prefix(&self) -> String {
        if self.text.contains('|') {
            return String::new();
        }
        let end = self.text.find(|c| META.contains(c)).unwrap_or(self.text.len());
        let (mut prefix, rest) = (self.text[..end].to_owned(), &self.text[end..]);
        if rest.starts_with(['*', '?', '{']) {
            // The last character need not be there.
            prefix.pop();
        }
        prefix
    }
}

/// What is wrong with a regular expression, in one line.
fn syntax_error(text: &str) -> String {
    let parsed = regex_syntax::Parser::new().parse(text);
    let reason = match parsed {
        Err(regex_syntax::Error::Parse(error)) => error.kind().to_string(),
        Err(regex_syntax::Error::Translate(error)) => error.kind().to_string(),
        _ => "it cannot be parsed".to_owned(),
    };
    format!("{text:?} is not a regular expression: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(text: &str) -> Namespace {
        Namespace::new(text, true).unwrap()
    }

    #[test]
    fn a_namespace_begins_where_the_identifier_does_and_may_end_before_it() {
        let irc = namespace("@irc_.*");
        assert!(irc.holds("@irc_someone:test"));
        assert!(!irc.holds("@not@irc_someone:test"));
        assert!(namespace("@bot:test").holds("@bot:test"));
        assert!(namespace("@bot").holds("@bot:test"));
        assert!(namespace("@a|@b").holds("@b:test") && !namespace("@a|@b").holds("x@b:test"));
    }

    #[test]
    fn the_beginning_of_all_is_found_where_there_is_one() {
        for (text, prefix) in [
            ("@irc_.*", "@irc_"),
            ("@bot:test", "@bot:test"),
            ("@ab?c", "@a"),
            (r"@a\.b", "@a"),
            ("@a|@b", ""),
            (".*", ""),
            ("(@a)", ""),
        ] {
            assert_eq!(namespace(text).prefix(), prefix, "{text}");
        }
    }

    #[test]
    fn what_is_no_regular_expression_is_said_in_one_line() {
        let error = Namespace::new("@irc_(", true).unwrap_err();
        assert!(error.contains("@irc_(") && error.contains("unclosed group"), "{error}");
        let error = Namespace::new("@(?!bot).*", true).unwrap_err();
        assert!(error.contains("look-around"), "{error}");
        assert!(!error.contains('\n'));
    }
}
