//! Tokens, as they are indexed and looked up.

use tantivy::tokenizer::{self, TokenStream, Tokenizer};

use super::{fold::fold, script::Class};

/// Longer words are known by their beginnings: nobody types them.
const WORD_CHARS_MAX: usize = 40;

/// Stems are marked, so that they meet each other and no whole words.
const STEM: char = '\u{1}';

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What is compared.
    pub text: String,
    /// The word without its ending, where it has one.
    pub stem: Option<String>,
    /// Its place among the words of the text.
    pub position: usize,
    /// Where it lies in the text, in bytes.
    pub range: std::ops::Range<usize>,
    /// What of the text it is.
    pub kind: Kind,
}

/// What a token is of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word or a symbol.
    Word,
    /// Two neighbouring characters of a run without spaces, or the only one of it. `range` is that of
    /// the run.
    Pair,
    /// The last character of such a run, by itself.
    Tail,
}

/// The tokens of a text, in order.
#[must_use]
pub fn tokens(text: &str) -> Vec<Token> {
    let mut cut = Cut::default();
    let mut run: Option<(Class, usize)> = None;
    for (at, c) in text.char_indices() {
        let class = Class::of(c);
        if class == Class::Mark && run.is_some() {
            continue;
        }
        let goes_on = matches!(class, Class::Word | Class::Unspaced)
            && run.is_some_and(|(running, _)| running == class);
        if goes_on {
            continue;
        }
        if let Some((class, begin)) = run.take() {
            cut.run(class, text, begin..at);
        }
        if !matches!(class, Class::Break | Class::Mark) {
            run = Some((class, at));
        }
    }
    if let Some((class, begin)) = run {
        cut.run(class, text, begin..text.len());
    }
    cut.tokens
}

/// What is cut so far.
#[derive(Default)]
struct Cut {
    tokens: Vec<Token>,
    position: usize,
}

impl Cut {
    fn run(&mut self, class: Class, text: &str, range: std::ops::Range<usize>) {
        let folded = fold(&text[range.clone()]);
        if folded.is_empty() {
            return;
        }
        if class == Class::Unspaced {
            return self.pairs(&folded, &range);
        }
        let word: String = folded.chars().take(WORD_CHARS_MAX).collect();
        let stem = stem(&word);
        self.push(Token { text: word, stem, position: self.position, range, kind: Kind::Word });
    }

    fn pairs(&mut self, folded: &str, range: &std::ops::Range<usize>) {
        let starts: Vec<usize> = folded.char_indices().map(|(at, _)| at).collect();
        for (nth, start) in starts.iter().enumerate() {
            let end = starts.get(nth + 2).copied().unwrap_or(folded.len());
            let text = folded[*start..end].to_owned();
            let is_tail = nth + 1 == starts.len() && nth > 0;
            let kind = if is_tail { Kind::Tail } else { Kind::Pair };
            let position = self.position;
            self.push(Token { text, stem: None, position, range: range.clone(), kind });
        }
    }

    fn push(&mut self, token: Token) {
        self.tokens.push(token);
        self.position += 1;
    }
}

/// The stem of an English word: so "messages" finds "message", as people are used to. Other
/// languages are left as they are.
fn stem(word: &str) -> Option<String> {
    if word.len() < 3 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let stemmer = frostem::Stemmer::new(frostem::Algorithm::English);
    let mut marked = String::from(STEM);
    marked.push_str(&stemmer.stem(word));
    Some(marked)
}

/// [`tokens`], as the index takes them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Analyzer;

/// The tokens of one text.
pub struct Stream {
    tokens: std::vec::IntoIter<tokenizer::Token>,
    token: tokenizer::Token,
}

impl Tokenizer for Analyzer {
    type TokenStream<'a> = Stream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Stream {
        let mut listed = Vec::new();
        for token in tokens(text) {
            let whole = tokenizer::Token {
                offset_from: token.range.start,
                offset_to: token.range.end,
                position: token.position,
                text: token.text,
                position_length: 1,
            };
            let stem = token.stem.map(|text| tokenizer::Token { text, ..whole.clone() });
            listed.push(whole);
            listed.extend(stem);
        }
        Stream { tokens: listed.into_iter(), token: tokenizer::Token::default() }
    }
}

impl TokenStream for Stream {
    fn advance(&mut self) -> bool {
        match self.tokens.next() {
            Some(token) => {
                self.token = token;
                true
            }
            None => false,
        }
    }

    fn token(&self) -> &tokenizer::Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut tokenizer::Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_are_cut_at_spaces_and_punctuation() {
        assert_eq!(texts("Hello, World-wide web!"), ["hello", "world", "wide", "web"]);
        assert_eq!(texts("L'été à Łódź"), ["l", "ete", "a", "lodz"]);
        assert_eq!(texts("नमस्ते दुनिया"), ["नमस्ते", "दुनिया"]);
        assert_eq!(texts("room #42 @alice:example.org"), ["room", "42", "alice", "example", "org"]);
        assert_eq!(texts(" \n…"), Vec::<String>::new());
    }

    #[test]
    fn scripts_without_spaces_become_pairs_of_characters() {
        assert_eq!(texts("我爱北京"), ["我爱", "爱北", "北京", "京"]);
        assert_eq!(texts("東京タワー"), ["東京", "京タ", "タワ", "ワー", "ー"]);
        assert_eq!(texts("서버는"), ["서버", "버는", "는"]);
        assert_eq!(texts("猫"), ["猫"]);
        let thai = texts("สวัสดี");
        assert_eq!(thai.len(), 6);
        assert_eq!(thai[0], "สว");
        assert_eq!(texts("新しいiPhone手機"), ["新し", "しい", "い", "iphone", "手機", "機"]);
    }

    #[test]
    fn an_emoji_is_a_word() {
        assert_eq!(texts("done🎉🎉 ok👍🏽"), ["done", "🎉", "🎉", "ok", "👍🏽"]);
    }

    #[test]
    fn places_count_words_and_ranges_point_into_the_text() {
        let text = "Ein Größerer Käse";
        let all = tokens(text);
        assert_eq!(all[1].position, 1);
        assert_eq!(&text[all[1].range.clone()], "Größerer");
        assert_eq!(all[2].text, "kase");
    }

    #[test]
    fn english_words_have_stems_and_others_have_none() {
        assert_eq!(tokens("messages")[0].stem, tokens("message")[0].stem);
        assert!(tokens("Übung")[0].stem.is_some(), "it may be English without its accents");
        assert_eq!(tokens("война")[0].stem, None);
    }

    #[test]
    fn an_endless_word_is_known_by_its_beginning() {
        let token = &tokens(&"x".repeat(100_000))[0];
        assert_eq!(token.text.len(), WORD_CHARS_MAX);
    }
}
