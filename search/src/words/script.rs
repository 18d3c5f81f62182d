//! What a character is to a search.

use icu_properties::{
    CodePointMapData,
    props::{GeneralCategory, Script},
};

/// The part that a character has in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A letter or digit of a script that has spaces between words.
    Word,
    /// A character of a script that has none, or in which endings stick to words.
    Unspaced,
    /// Part of whatever it follows.
    Mark,
    /// A word by itself, such as an emoji.
    Symbol,
    /// Between words.
    Break,
}

impl Class {
    pub fn of(c: char) -> Self {
        if c.is_ascii() {
            return if c.is_ascii_alphanumeric() { Self::Word } else { Self::Break };
        }
        let category = CodePointMapData::<GeneralCategory>::new().get(c);
        match category {
            // Emoji are symbols; modifiers, such as skin colours, stick to them.
            GeneralCategory::OtherSymbol => Self::Symbol,
            GeneralCategory::NonspacingMark
            | GeneralCategory::SpacingMark
            | GeneralCategory::EnclosingMark
            | GeneralCategory::ModifierSymbol
            | GeneralCategory::Format => Self::Mark,
            _ if is_unspaced(c) => Self::Unspaced,
            GeneralCategory::UppercaseLetter
            | GeneralCategory::LowercaseLetter
            | GeneralCategory::TitlecaseLetter
            | GeneralCategory::ModifierLetter
            | GeneralCategory::OtherLetter
            | GeneralCategory::DecimalNumber
            | GeneralCategory::LetterNumber
            | GeneralCategory::OtherNumber => Self::Word,
            _ => Self::Break,
        }
    }
}

fn is_unspaced(c: char) -> bool {
    const LONG_VOWELS: [char; 2] = ['ー', 'ｰ']; // common to both kana
    let script = CodePointMapData::<Script>::new().get(c);
    LONG_VOWELS.contains(&c)
        || [
            Script::Han,
            Script::Hiragana,
            Script::Katakana,
            Script::Bopomofo,
            Script::Hangul,
            Script::Thai,
            Script::Lao,
            Script::Khmer,
            Script::Myanmar,
        ]
        .contains(&script)
}
