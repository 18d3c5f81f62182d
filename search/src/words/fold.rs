//! Making alike what readers take for the same letters.

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

const DECOMPOSE: DecomposingNormalizerBorrowed<'static> = DecomposingNormalizerBorrowed::new_nfkd();
const COMPOSE: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfc();

/// The text in small letters, without accents, vowel points, differences of width and what cannot be
/// seen.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let bare = DECOMPOSE.normalize_iter(text.chars()).filter(|c| !is_left_out(*c));
    let mut folded = String::with_capacity(text.len());
    for c in bare.flat_map(char::to_lowercase) {
        match plain(c) {
            Some(plain) => folded.push_str(plain),
            None => folded.push(c),
        }
    }
    COMPOSE.normalize(&folded).into_owned()
}

/// Marks that people leave out when they type, and characters without a shape.
const fn is_left_out(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}' // accents of Latin, Greek and Cyrillic letters
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' // Hebrew points
        | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' // Arabic vowels, Tatweel
        | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' // soft hyphen, joiners, direction
        | '\u{fe00}'..='\u{fe0f}' // variation selectors
    )
}

/// Letters that do not decompose, in those that stand for them where a keyboard lacks them.
const fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ı' => "i",
        'ł' => "l",
        'ŧ' => "t",
        'þ' => "th",
        'ς' => "σ",
        'ی' => "ي", // Persian letters, which look the same
        'ک' => "ك",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_points_and_width_make_no_difference() {
        for (text, folded) in [
            ("Hello", "hello"),
            ("Ünïcödé", "unicode"),
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("İstanbul ı", "istanbul i"),
            ("Łódź", "lodz"),
            ("smørrebrød", "smorrebrod"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("Σίσυφος", "σισυφοσ"),
            ("Ёлка", "елка"),
            ("ＡＢＣ１２３", "abc123"),
            ("ﬁnd", "find"),
            ("שָׁלוֹם", "שלום"),
            ("مُحَمَّد", "محمد"),
            ("ﾃｽﾄ", "テスト"),
            ("がぎ", "がぎ"), // a voiced consonant is another one
            ("한국어", "한국어"),
            ("हिन्दी", "हिन्दी"), // vowel signs are part of the word
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }
}
