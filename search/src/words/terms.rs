//! What somebody searches for.

use rustc_hash::FxHashSet;

use super::{
    fold::fold,
    tokens::{Kind, Token, tokens},
};

/// The longest search term, in bytes.
const BYTES_MAX: usize = 1024;
/// The most tokens that a search term may consist of.
const TOKENS_MAX: usize = 64;

/// Why a search term cannot be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// It is too long.
    #[error("the search term is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// It has too many words.
    #[error("the search term has more than {TOKENS_MAX} words")]
    TooManyWords,
}

/// A search term: parts that must all occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The parts. With none, nothing is found.
    pub parts: Vec<Part>,
    /// What was typed in scripts without spaces.
    unspaced: Vec<String>,
}

/// A part of a search term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// One word, also with another ending.
    Word {
        /// The word.
        text: String,
        /// Without its ending.
        stem: Option<String>,
    },
    /// One character of a script without spaces, anywhere.
    Character(String),
    /// Tokens at these distances from the first.
    Phrase(Vec<(usize, String)>),
}

impl Terms {
    /// Takes a search term apart: at spaces, but for what stands between quotation marks.
    ///
    /// # Errors
    /// Where it is longer than can be answered in bounded time.
    pub fn parse(term: &str) -> Result<Self, TermError> {
        if term.len() > BYTES_MAX {
            return Err(TermError::TooLong);
        }
        let (mut parts, mut unspaced) = (Vec::new(), Vec::new());
        let mut count = 0;
        for (nth, piece) in term.split('"').enumerate() {
            // Every second piece stands between quotation marks.
            let chunks: Vec<&str> =
                if nth % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() };
            for chunk in chunks {
                let tokens = tokens(chunk);
                count += tokens.len();
                if count > TOKENS_MAX {
                    return Err(TermError::TooManyWords);
                }
                if tokens.iter().any(|token| token.kind == Kind::Pair) {
                    unspaced.push(chunk.to_owned());
                }
                parts.extend(part(tokens, nth % 2 == 1));
            }
        }
        Ok(Self { parts, unspaced })
    }

    /// What of `text` this searches for: words as they stand there, and what was typed in scripts
    /// without spaces.
    #[must_use]
    pub fn found_in(&self, text: &str) -> Vec<String> {
        let mut wanted = FxHashSet::default();
        for part in &self.parts {
            match part {
                Part::Word { text, stem } => {
                    wanted.insert(text.as_str());
                    wanted.extend(stem.as_deref());
                }
                Part::Phrase(tokens) => wanted.extend(tokens.iter().map(|(_, text)| text.as_str())),
                Part::Character(_) => {}
            }
        }
        let is_wanted = |token: &Token| {
            wanted.contains(token.text.as_str())
                || token.stem.as_deref().is_some_and(|stem| wanted.contains(stem))
        };
        let words = tokens(text).into_iter().filter(|token| token.kind == Kind::Word);
        let words = words.filter(is_wanted).map(|token| text[token.range].to_owned());
        let folded = fold(text);
        let runs = self.unspaced.iter().filter(|typed| folded.contains(&fold(typed)));
        words.chain(runs.cloned()).collect()
    }
}

fn part(mut tokens: Vec<Token>, quoted: bool) -> Option<Part> {
    // In a longer text the last character goes on with the next.
    tokens.retain(|token| token.kind != Kind::Tail);
    if tokens.len() > 1 {
        let first = tokens.first()?.position;
        let placed = tokens.into_iter().map(|token| (token.position - first, token.text));
        return Some(Part::Phrase(placed.collect()));
    }
    let Token { text, stem, kind, .. } = tokens.pop()?;
    if kind == Kind::Pair && text.chars().nth(1).is_none() {
        return Some(Part::Character(text));
    }
    Some(Part::Word { text, stem: stem.filter(|_| !quoted) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Part {
        let stem = tokens(text).pop().and_then(|token| token.stem);
        Part::Word { text: text.to_owned(), stem }
    }

    #[test]
    fn words_must_all_occur_and_what_is_glued_together_stays_so() {
        let parts = |term: &str| Terms::parse(term).unwrap().parts;
        assert_eq!(parts("Hello  WORLD"), [word("hello"), word("world")]);
        let phrase = Part::Phrase(vec![(0, "matrix".into()), (1, "org".into())]);
        assert_eq!(parts("matrix.org"), std::slice::from_ref(&phrase));
        assert_eq!(parts("\"Matrix org\""), [phrase]);
        assert_eq!(parts("\"messages\""), [Part::Word { text: "messages".into(), stem: None }]);
        assert_eq!(parts("北京"), [word("北京")]);
        assert_eq!(parts("京"), [Part::Character("京".into())]);
        let run = Part::Phrase(vec![(0, "サー".into()), (1, "ーバ".into()), (2, "バー".into())]);
        assert_eq!(parts("サーバー"), [run]);
        assert_eq!(parts(" … \" "), []);
    }

    #[test]
    fn endless_terms_are_refused() {
        assert_eq!(Terms::parse(&"a".repeat(BYTES_MAX + 1)), Err(TermError::TooLong));
        assert_eq!(Terms::parse(&"a ".repeat(TOKENS_MAX + 1)), Err(TermError::TooManyWords));
        assert!(Terms::parse(&"a ".repeat(TOKENS_MAX)).is_ok());
    }

    #[test]
    fn what_was_found_is_told_as_it_stands_in_the_text() {
        let found = |term: &str, text: &str| Terms::parse(term).unwrap().found_in(text);
        assert_eq!(found("message", "Two Messages, one MESSAGE"), ["Messages", "MESSAGE"]);
        assert_eq!(found("cafe", "Im Café"), ["Café"]);
        assert_eq!(found("北京", "我爱北京天安门"), ["北京"]);
        assert_eq!(found("京", "我爱北京"), ["京"]);
        assert!(found("other", "nothing").is_empty());
    }
}
