//! The tokens of `/sync` and `/messages`, which come back from clients.

use std::fmt::{Debug, Display};

use millrace_model::{PageToken, Position, SyncToken, TimelineIndex, View, position::FromToken};

/// Tokens as the server makes them.
pub fn samples() -> Vec<Vec<u8>> {
    let mut view = View::empty();
    let mut tokens = Vec::new();
    for (writer, seq) in [(0, 1), (1, 300), (500, u64::MAX), (u16::MAX, 1 << 40)] {
        view.advance(Position { writer, seq });
        for ephemeral in [None, Some((7, 1)), Some((u64::MAX, u64::MAX))] {
            let token = SyncToken { view: view.clone(), to_device: seq / 2, ephemeral };
            tokens.push(token.to_string());
        }
    }
    for (n, k) in [(0, 0), (1, 0), (i64::MAX, -1), (i64::MIN, i32::MIN)] {
        tokens.push(PageToken::before(TimelineIndex { n, k }).to_string());
    }
    tokens.into_iter().map(String::into_bytes).collect()
}

/// Whatever is accepted is written as a token that means the same.
pub fn run(input: &[u8]) -> bool {
    let Some(text) = super::as_text(input) else { return false };
    let sync = comes_back(text.parse::<SyncToken>(), |token| token.to_string().parse());
    let page = comes_back(text.parse::<PageToken>(), |token| {
        assert_eq!(token.to_string(), text, "a page token is written in one way");
        let _ = PageToken::after(token.index);
        token.to_string().parse()
    });
    let from = text.parse::<FromToken>();
    assert_eq!(from.is_ok(), sync || page);
    from.is_ok()
}

fn comes_back<T: Debug + PartialEq, E: Display>(
    parsed: Result<T, E>,
    again: impl FnOnce(&T) -> Result<T, E>,
) -> bool {
    let Ok(token) = parsed else { return false };
    assert_eq!(again(&token).ok().as_ref(), Some(&token));
    true
}
