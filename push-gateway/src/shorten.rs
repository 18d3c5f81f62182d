//! Making texts short enough for a vendor.

/// The beginning of `text`, of at most `bytes_max` bytes, with an ellipsis where something is missing.
#[must_use]
pub fn to_bytes(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let ellipsis = "…";
    let end = text.floor_char_boundary(bytes_max.saturating_sub(ellipsis.len()));
    format!("{}{ellipsis}", &text[..end])
}

/// Shortens the longest of `texts` until `size` says at most `bytes_max`, or nothing is left to shorten.
/// Whether it is short enough then.
pub fn until<T>(
    value: &mut T,
    bytes_max: usize,
    size: impl Fn(&T) -> usize,
    texts: impl Fn(&mut T) -> Vec<&mut String>,
) -> bool {
    /// Shorter texts stay as they are.
    const WORTH: usize = 16;
    loop {
        let excess = size(value).saturating_sub(bytes_max);
        if excess == 0 {
            return true;
        }
        let longest = texts(value).into_iter().max_by_key(|text| text.len());
        match longest {
            Some(text) if text.len() > WORTH => {
                // Escapes make a text longer than its bytes: half of it goes at the most, then it
                // is measured again.
                let target = text.len().saturating_sub(excess).max(text.len() / 2);
                *text = to_bytes(text, target.min(text.len() - 1));
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(to_bytes("straße", 7), "straße");
        assert_eq!(to_bytes("straßen", 7), "stra…");
        assert_eq!(to_bytes("日本語", 8), "日…");
    }

    #[test]
    fn the_longest_text_is_shortened_until_all_fit() {
        let mut texts = vec!["a".repeat(50), "b".repeat(500), "c".repeat(300)];
        let size = |texts: &Vec<String>| texts.iter().map(String::len).sum();
        assert!(until(&mut texts, 400, size, |texts| texts.iter_mut().collect()));
        assert_eq!(texts[0].len(), 50, "a short text stays");
        assert!(size(&texts) <= 400 && size(&texts) > 200);
        assert!(!until(&mut texts, 3, size, |texts| texts.iter_mut().collect()));
    }
}
