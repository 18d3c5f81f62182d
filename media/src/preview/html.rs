//! What a page says of itself: Open Graph, and what it can be guessed from where there is none.

use std::collections::BTreeMap;

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};

/// Most properties that are kept of a page.
const PROPERTIES_MAX: usize = 60;
/// The longest value, in characters.
const VALUE_CHARS_MAX: usize = 1000;
/// How much of a page's text describes it, in characters.
const TEXT_CHARS_MAX: usize = 300;
/// Elements whose text does not describe a page.
const SILENT: [&[u8]; 14] = [
    b"script",
    b"style",
    b"noscript",
    b"template",
    b"svg",
    b"header",
    b"nav",
    b"aside",
    b"footer",
    b"button",
    b"select",
    b"textarea",
    b"iframe",
    b"form",
];

/// What is found in a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// `og:…` properties.
    pub open_graph: BTreeMap<String, String>,
    /// Where its oEmbed description is, relative to the page.
    pub oembed: Option<String>,
    title: Option<String>,
    heading: Option<String>,
    /// `twitter:…` and other descriptions in its head.
    metadata: BTreeMap<String, String>,
    /// An image that stands for it, of a `link`.
    image: Option<String>,
    text: String,
}

/// Looks through a page.
pub(super) fn describe(html: &str) -> Described {
    let mut described = Described::default();
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut inside = Inside::default();
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        match token {
            Token::StartTag(tag) => described.start(&tag, &mut inside),
            Token::EndTag(tag) => inside.end(&tag.name),
            Token::String(text) => described.text(&String::from_utf8_lossy(&text), &inside),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    described
}

/// Where in the page the text is.
#[derive(Default)]
struct Inside {
    title: bool,
    heading: bool,
    body: bool,
    /// The outermost silent element, and how many of its name are open.
    silent: Option<(Vec<u8>, usize)>,
}

impl Inside {
    fn end(&mut self, name: &[u8]) {
        match name {
            b"title" => self.title = false,
            b"h1" => self.heading = false,
            _ => {}
        }
        if let Some((silent, open)) = &mut self.silent
            && silent == name
        {
            *open -= 1;
            if *open == 0 {
                self.silent = None;
            }
        }
    }
}

impl Described {
    fn start(&mut self, tag: &StartTag<()>, inside: &mut Inside) {
        let name: &[u8] = &tag.name;
        match name {
            b"title" => inside.title = self.title.is_none(),
            b"h1" => inside.heading = self.heading.is_none(),
            b"body" => inside.body = true,
            b"meta" => self.meta(tag),
            b"link" => self.link(tag),
            _ => {}
        }
        match &mut inside.silent {
            Some((silent, open)) if silent == name => *open += 1,
            None if SILENT.contains(&name) && !tag.self_closing => {
                inside.silent = Some((name.to_owned(), 1));
            }
            _ => {}
        }
    }

    fn meta(&mut self, tag: &StartTag<()>) {
        let names = [&b"property"[..], b"name", b"itemprop"];
        let Some(name) = names.into_iter().find_map(|name| attribute(tag, name)) else { return };
        let Some(value) = attribute(tag, b"content") else { return };
        let (name, value) = (name.trim().to_ascii_lowercase(), bounded(&value, VALUE_CHARS_MAX));
        if value.is_empty() || self.open_graph.len() + self.metadata.len() >= PROPERTIES_MAX {
            return;
        }
        // The first of several counts.
        if name.starts_with("og:") {
            self.open_graph.entry(name).or_insert(value);
        } else if name.starts_with("twitter:") || matches!(&*name, "description" | "image") {
            self.metadata.entry(name).or_insert(value);
        }
    }

    fn link(&mut self, tag: &StartTag<()>) {
        let Some(target) = attribute(tag, b"href") else { return };
        let relation = attribute(tag, b"rel").unwrap_or_default().to_ascii_lowercase();
        let kind = attribute(tag, b"type").unwrap_or_default().to_ascii_lowercase();
        match &*relation {
            "alternate" if kind == "application/json+oembed" => {
                self.oembed.get_or_insert(target);
            }
            "image_src" => {
                self.image.get_or_insert(target);
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str, inside: &Inside) {
        if inside.title {
            add(self.title.get_or_insert_default(), text, VALUE_CHARS_MAX);
        } else if inside.silent.is_none() {
            if inside.heading {
                add(self.heading.get_or_insert_default(), text, VALUE_CHARS_MAX);
            }
            if inside.body {
                add(&mut self.text, text, TEXT_CHARS_MAX);
            }
        }
    }

    /// Fills in what Open Graph does not say.
    pub(super) fn complete(mut self) -> BTreeMap<String, String> {
        let mut said = std::mem::take(&mut self.open_graph);
        let mut metadata = |name: &str| self.metadata.remove(name);
        let title = metadata("twitter:title").or(self.title).or(self.heading);
        let description = metadata("twitter:description").or_else(|| metadata("description"));
        let description = description.or(Some(self.text));
        let image = ["og:image:url", "og:image:secure_url"];
        let image = image.into_iter().find_map(|name| said.get(name).cloned());
        let image = image.or_else(|| metadata("twitter:image")).or_else(|| metadata("image"));
        let image = image.or(self.image);
        for (name, guess) in
            [("og:title", title), ("og:description", description), ("og:image", image)]
        {
            let guess = guess.map(|guess| guess.trim().to_owned());
            if let Some(guess) = guess.filter(|guess| !guess.is_empty()) {
                said.entry(name.to_owned()).or_insert(guess);
            }
        }
        said
    }
}

fn attribute(tag: &StartTag<()>, name: &[u8]) -> Option<String> {
    let value = tag.attributes.get(name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn bounded(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    add(&mut out, text, chars_max);
    out.trim().to_owned()
}

/// Adds text, white space collapsed, as far as there is room.
fn add(out: &mut String, text: &str, chars_max: usize) {
    let mut room = chars_max.saturating_sub(out.chars().count());
    let mut spaced = out.is_empty() || out.ends_with(' ');
    for letter in text.chars() {
        if room == 0 {
            return;
        }
        let space = letter.is_whitespace() || letter.is_control();
        if !(space && spaced) {
            out.push(if space { ' ' } else { letter });
            room -= 1;
        }
        spaced = space;
    }
    // What follows is in another element.
    if room > 0 && !spaced && text.ends_with('\n') {
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(html: &str) -> Vec<(String, String)> {
        describe(html).complete().into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn open_graph_is_believed_first() {
        let html = r#"<html><head><title>Other</title>
            <meta property="og:title" content="Rock &amp; Roll"><meta property="og:title" content="2">
            <meta property=og:type content=video.movie /><meta name="description" content="D">
            <meta name="twitter:image" content="/t.png"></head><body>Text</body></html>"#;
        let expected = [
            ("og:description", "D"),
            ("og:image", "/t.png"),
            ("og:title", "Rock & Roll"),
            ("og:type", "video.movie"),
        ];
        assert_eq!(said(html), pairs(&expected));
    }

    #[test]
    fn a_page_that_says_nothing_is_described_by_its_text() {
        let html = "<title> A\n title </title><body><nav>Menu<nav>more</nav>x</nav><script>if (a<b) \
                    {}</script><h1>Head</h1>\n<p>Some   text</p><style>p{}</style><footer>F</footer>";
        let expected = [("og:description", "Head Some text"), ("og:title", "A title")];
        assert_eq!(said(html), pairs(&expected));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let html = (0..500).map(|n| format!("<meta property='og:{n}' content='x'>"));
        assert_eq!(describe(&html.collect::<String>()).open_graph.len(), PROPERTIES_MAX);
        let html = format!("<title>{0}</title><body>{0}", "word ".repeat(100_000));
        let said = describe(&html).complete();
        assert_eq!(said["og:title"].chars().count(), VALUE_CHARS_MAX - 1);
        assert!(said["og:description"].chars().count() <= TEXT_CHARS_MAX);
        for odd in ["<", "<meta", "<meta property=og:title", "<title>", "<!--", "</", "<svg><svg>"]
        {
            describe(odd).complete();
        }
    }

    #[test]
    fn an_oembed_description_is_found() {
        let html = "<link rel=alternate type=application/json+oembed href=/oembed?u=1&amp;v=2>";
        assert_eq!(describe(html).oembed.as_deref(), Some("/oembed?u=1&v=2"));
    }
}
