//! Glob patterns of push rules (spec: Appendices, Glob-style matching): `*` is any characters, `?`
//! is one. Matching ignores case and takes time in proportion to the text, whatever the pattern.

/// Whether `pattern` matches the whole of `text`, in any case of letters.
#[must_use]
pub fn matches_whole(pattern: &str, text: &str) -> bool {
    if !has_wildcards(pattern) {
        return eq_ignore_case(pattern, text);
    }
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    matches_chars(&pattern, &text)
}

/// Whether `pattern` matches a part of `text_lower` that starts and ends at word boundaries.
/// `text_lower` is in lower case already.
pub(super) fn matches_words(pattern: &str, text_lower: &str) -> bool {
    if pattern.is_empty() {
        return false;
    }
    if !has_wildcards(pattern) {
        return contains_word(pattern, text_lower);
    }
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    matches_somewhere(&pattern, text_lower)
}

/// Whether `text_lower`, in lower case, contains `word` between word boundaries, in any case of
/// letters. Wildcards in `word` mean themselves.
pub(super) fn contains_word(word: &str, text_lower: &str) -> bool {
    let word = word.to_lowercase();
    let mut from = 0;
    while let Some(at) = text_lower[from..].find(&word).map(|at| from + at) {
        if is_word_at(text_lower, at, word.len()) {
            return true;
        }
        // Places may overlap, so the search goes on one character further.
        from = at + text_lower[at..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

fn is_word_at(text: &str, start: usize, len: usize) -> bool {
    let before = text[..start].chars().next_back();
    let after = text[start + len..].chars().next();
    !before.is_some_and(is_word_char) && !after.is_some_and(is_word_char)
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn has_wildcards(pattern: &str) -> bool {
    pattern.bytes().any(|byte| byte == b'*' || byte == b'?')
}

fn eq_ignore_case(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

/// The usual matcher: on a mismatch it goes back to the last `*` only.
fn matches_chars(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after_star, tried)) => {
                    star = Some((after_star, tried + 1));
                    (p, t) = (after_star, tried + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Follows all places of the pattern at once over the text: `live[i]` says that the pattern up to `i`
/// matches what ends here, from some word boundary on.
fn matches_somewhere(pattern: &[char], text: &str) -> bool {
    let mut live = vec![false; pattern.len() + 1];
    let mut next_live = live.clone();
    let mut after_word_char = false;
    let mut chars = text.chars().peekable();
    loop {
        live[0] |= !after_word_char;
        skip_stars(pattern, &mut live);
        if live[pattern.len()] && !chars.peek().copied().is_some_and(is_word_char) {
            return true;
        }
        let Some(c) = chars.next() else {
            return false;
        };
        next_live.fill(false);
        for (i, &p) in pattern.iter().enumerate().filter(|&(i, _)| live[i]) {
            match p {
                '*' => next_live[i] = true,
                p if p == '?' || p == c => next_live[i + 1] = true,
                _ => {}
            }
        }
        std::mem::swap(&mut live, &mut next_live);
        after_word_char = is_word_char(c);
    }
}

/// A `*` may stand for nothing.
fn skip_stars(pattern: &[char], live: &mut [bool]) {
    for (i, &c) in pattern.iter().enumerate() {
        if c == '*' && live[i] {
            live[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification_match() {
        for (pattern, text, matches) in [
            ("lunc?*", "Lunch plans", true),
            ("lunc?*", "LUNCH", true),
            ("lunc?*", " lunch", false),
            ("lunc?*", "lunc", false),
            ("m.room.message", "M.ROOM.MESSAGE", true),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("STRASSE", "straße", false),
            ("ÄRGER", "ärger", true),
        ] {
            assert_eq!(matches_whole(pattern, text), matches, "{pattern} {text}");
        }
        for (pattern, text, matches) in [
            ("ex*ple", "An example event.", true),
            ("ex*ple", "exple", true),
            ("ex*ple", "An exciting triple-whammy", true),
            ("ex*ple", "An examples", false),
            ("cake", "Cake!", true),
            ("cake", "pancake", false),
            ("cake", "pancake cake", true),
            ("cake", "cake_", false),
            ("aa", "aaa aa", true),
            ("ca?e", "a CAVE,", true),
            ("*cake*", "xcakex", true),
            ("é", "café é", true),
            ("", "anything", false),
        ] {
            assert_eq!(matches_words(pattern, &text.to_lowercase()), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn a_display_name_with_wildcards_means_itself() {
        assert!(contains_word("A*b", "hello a*b!"));
        assert!(!contains_word("A*b", "hello axb!"));
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_the_text_deserves() {
        let text = "a".repeat(60_000);
        assert!(!matches_words(&"a*".repeat(40).replace("a*a*", "a*?a*b"), &text));
    }

    fn matches_plainly(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some(('*', tail)), rest) => {
                matches_plainly(tail, text)
                    || rest.is_some_and(|(_, rest)| matches_plainly(pattern, rest))
            }
            (Some((p, pattern)), Some((t, text))) => {
                (*p == '?' || p == t) && matches_plainly(pattern, text)
            }
            (Some(_), None) => false,
        }
    }

    fn matches_words_plainly(pattern: &str, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) =
            (pattern.chars().collect(), text.chars().collect());
        let is_boundary = |beside: Option<usize>| {
            beside.and_then(|at| text.get(at)).is_none_or(|&c| !is_word_char(c))
        };
        (0..=text.len()).any(|i| {
            is_boundary(i.checked_sub(1))
                && (i..=text.len())
                    .any(|j| is_boundary(Some(j)) && matches_plainly(&pattern, &text[i..j]))
        })
    }

    proptest! {
        #[test]
        fn whole_matches_mean_what_they_say(pattern in "[ab*?]{0,6}", text in "[ab]{0,8}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                matches_whole(&pattern, &text),
                matches_plainly(&chars(&pattern), &chars(&text))
            );
        }

        #[test]
        fn word_matches_mean_what_they_say(pattern in "[ab*? ]{1,6}", text in "[ab ]{0,9}") {
            prop_assert_eq!(matches_words(&pattern, &text), matches_words_plainly(&pattern, &text));
        }
    }
}
