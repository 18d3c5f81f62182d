//! Patterns with `*` and `?`.

/// Whether `text` is what `pattern` describes: `*` stands for any characters, `?` for one.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut in_text) = (0, 0);
    // Where the last star was, and how much of the text it has been given so far.
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(expected) if *expected == '?' || *expected == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            _ => {
                let Some((star_at, given)) = star else { return false };
                star = Some((star_at, given + 1));
                at = star_at + 1;
                in_text = given + 1;
            }
        }
    }
    pattern[at..].iter().all(|left| *left == '*')
}

/// Whether a text has characters that mean something in a pattern.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, text, expected) in [
            ("com.example.app", "com.example.app", true),
            ("com.example.app", "com.example.app.dev", false),
            ("com.example.*", "com.example.app.dev", true),
            ("com.example.*", "com.example", false),
            ("*.dev", "com.example.dev", true),
            ("com.*.app.*", "com.a.app.b.app.c", true),
            ("com.?.app", "com.x.app", true),
            ("com.?.app", "com.xy.app", false),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} and {text}");
        }
    }
}
