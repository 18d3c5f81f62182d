//! The text of a page, whatever its encoding: by its byte order mark, its `Content-Type`, or what it
//! says of itself (the HTML standard, "Determining the character encoding").

use encoding_rs::{Encoding, UTF_8};

/// How far into a page its own word is looked for, in bytes.
const LOOKED_AT_BYTES: usize = 2048;

/// The text of a page. What cannot be read becomes U+FFFD.
pub(super) fn decode(content: &[u8], content_type: Option<&str>) -> String {
    let said = content_type.and_then(|kind| label_after(&kind.to_ascii_lowercase(), "charset"));
    let encoding = said.or_else(|| own_word(content)).unwrap_or(UTF_8);
    // A byte order mark goes above both.
    encoding.decode(content).0.into_owned()
}

fn own_word(content: &[u8]) -> Option<&'static Encoding> {
    let head = &content[..content.len().min(LOOKED_AT_BYTES)];
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let found = label_after(&head, "charset").or_else(|| {
        let declaration = head.trim_start().strip_prefix("<?xml")?;
        label_after(declaration.split_once("?>")?.0, "encoding")
    })?;
    // Text that says so in single bytes is not in pairs of them.
    Some(if found.is_ascii_compatible() { found } else { UTF_8 })
}

/// The encoding in `name=label`.
fn label_after(text: &str, name: &str) -> Option<&'static Encoding> {
    text.match_indices(name).find_map(|(place, _)| {
        let value = text[place + name.len()..].trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let end = value.find(['"', '\'', ' ', ';', '>', '/', '?']).unwrap_or(value.len());
        Encoding::for_label(&value.as_bytes()[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_in_their_own_encodings() {
        let (shift_jis, _, _) = encoding_rs::SHIFT_JIS.encode("<meta charset=\"Shift_JIS\">日本");
        assert!(decode(&shift_jis, None).ends_with("日本"));
        let latin = b"<title>caf\xe9</title>";
        assert_eq!(decode(latin, Some("text/html; charset=ISO-8859-1")), "<title>café</title>");
        let meta = b"<meta http-equiv=content-type content='text/html; charset=windows-1252'>\xe9";
        assert!(decode(meta, Some("text/html")).ends_with('é'));
        let xml = b"<?xml version='1.0' encoding='koi8-r'?>\xc1";
        assert!(decode(xml, None).ends_with('а'));
        assert_eq!(decode("\u{feff}ü".as_bytes(), Some("text/html; charset=koi8-r")), "ü");
        assert_eq!(decode(b"a\xff", Some("text/html; charset=nonsense")), "a\u{fffd}");
    }
}
