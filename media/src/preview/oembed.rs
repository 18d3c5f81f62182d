//! oEmbed: what a provider says of a page, in JSON (<https://oembed.com>).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::html;

/// What an oEmbed answer says, as Open Graph properties.
pub(super) fn properties(answer: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |name: &str| answer.get(name)?.as_str().map(ToOwned::to_owned);
    let kind = text("type").unwrap_or_default();
    let image = match &*kind {
        "photo" => text("url").or_else(|| text("thumbnail_url")),
        _ => text("thumbnail_url"),
    };
    // The text of a rich answer describes it, without its markup.
    let rich = (kind == "rich").then(|| text("html")).flatten();
    let rich = rich.map(|markup| html::describe(&format!("<body>{markup}")).complete());
    let description = rich.and_then(|mut said| said.remove("og:description"));
    let found = [
        ("og:title", text("title").or_else(|| text("author_name"))),
        ("og:site_name", text("provider_name")),
        ("og:url", text("url").filter(|_| kind == "link")),
        ("og:image", image),
        ("og:description", description),
    ];
    let found = found.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    found.filter(|(_, value)| !value.is_empty() && value.len() <= 4000).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_type_says_what_it_can() {
        let said = |answer: Value| properties(answer.as_object().unwrap());
        let video = said(json!({
            "version": "1.0", "type": "video", "title": "T", "provider_name": "P",
            "thumbnail_url": "https://a/b.jpg", "html": "<iframe src=evil>", "width": 3,
        }));
        assert_eq!(video["og:title"], "T");
        assert_eq!((&*video["og:image"], &*video["og:site_name"]), ("https://a/b.jpg", "P"));
        assert!(!video.contains_key("og:description"));
        let rich = said(json!({
            "type": "rich", "author_name": "A", "html": "<p>Some <b>words</b></p><script>x</script>",
        }));
        assert_eq!((&*rich["og:title"], &*rich["og:description"]), ("A", "Some words"));
        let photo = said(json!({ "type": "photo", "url": "https://a/p.png" }));
        assert_eq!(photo["og:image"], "https://a/p.png");
        assert!(said(json!({ "type": 3, "title": ["x"] })).is_empty());
    }
}
