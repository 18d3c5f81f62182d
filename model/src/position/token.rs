//! The text forms that clients carry: sync tokens and page tokens. Both are safe in URLs.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{Position, TimelineIndex, View};

/// Names this version of the sync token; an unknown one is refused, never guessed at.
const SYNC_PREFIX: &str = "m2_";
const PAGE_PREFIX: char = 't';
/// No more writers than there are slots in a cluster of any sensible size; bounds a hostile token.
const WRITERS_MAX: usize = 1024;

/// A token that this server did not make, or made in a form it no longer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not one of this server's")]
pub struct InvalidToken;

/// What a `since` or `next_batch` stands for: everything in `view` has been seen, of the messages
/// from other devices those up to `to_device`, and of typing and presence everything up to
/// `ephemeral`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyncToken {
    /// How far the durable things have been seen.
    pub view: View,
    /// The place in the device's queue up to which its messages have been seen; 0 before the first.
    /// A response holds a bounded number of them, so `view` cannot say it.
    pub to_device: u64,
    /// How far typing and presence have been seen: the process run (`boot`) and its counter.
    pub ephemeral: Option<(u64, u64)>,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(32);
        put_varint(&mut bytes, self.view.iter().len() as u64);
        for Position { writer, seq } in self.view.iter() {
            put_varint(&mut bytes, writer.into());
            put_varint(&mut bytes, seq);
        }
        put_varint(&mut bytes, self.to_device);
        if let Some((boot, counter)) = self.ephemeral {
            bytes.extend_from_slice(&boot.to_be_bytes());
            put_varint(&mut bytes, counter);
        }
        f.write_str(SYNC_PREFIX)?;
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for SyncToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let encoded = text.strip_prefix(SYNC_PREFIX).ok_or(InvalidToken)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidToken)?;
        let mut rest = bytes.as_slice();
        let writers = usize::try_from(take_varint(&mut rest)?).map_err(|_| InvalidToken)?;
        if writers > WRITERS_MAX {
            return Err(InvalidToken);
        }
        let mut view = View::empty();
        let mut last = None;
        for _ in 0..writers {
            let writer = u16::try_from(take_varint(&mut rest)?).map_err(|_| InvalidToken)?;
            let seq = take_varint(&mut rest)?;
            if seq == 0 || last.is_some_and(|last| writer <= last) {
                return Err(InvalidToken);
            }
            last = Some(writer);
            view.advance(Position { writer, seq });
        }
        let to_device = take_varint(&mut rest)?;
        let ephemeral = if rest.is_empty() {
            None
        } else {
            let (boot, mut tail) = rest.split_first_chunk::<8>().ok_or(InvalidToken)?;
            let counter = take_varint(&mut tail)?;
            if !tail.is_empty() {
                return Err(InvalidToken);
            }
            Some((u64::from_be_bytes(*boot), counter))
        };
        Ok(Self { view, to_device, ephemeral })
    }
}

/// A point between the events of a timeline, as `from`, `to`, `start`, `end` and `prev_batch` carry
/// it: just before the event at `index`, whether or not there is one. Going backwards from it gives
/// events below `index`, going forwards events at `index` and above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageToken {
    /// The first place after the point.
    pub index: TimelineIndex,
}

impl PageToken {
    /// The point just before the event at `index`.
    pub const fn before(index: TimelineIndex) -> Self {
        Self { index }
    }

    /// The point just after the event at `index`.
    pub const fn after(index: TimelineIndex) -> Self {
        let TimelineIndex { n, k } = index;
        let index = match k.checked_add(1) {
            Some(k) if k <= 0 => TimelineIndex { n, k },
            _ => TimelineIndex { n: n.saturating_add(1), k: i32::MIN },
        };
        Self { index }
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimelineIndex { n, k } = self.index;
        match k {
            0 => write!(f, "{PAGE_PREFIX}{n}"),
            k => write!(f, "{PAGE_PREFIX}{n}_{k}"),
        }
    }
}

impl FromStr for PageToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let numbers = text.strip_prefix(PAGE_PREFIX).ok_or(InvalidToken)?;
        let (n, k) = match numbers.split_once('_') {
            Some((n, k)) => (parse_plain::<i64>(n)?, parse_plain::<i32>(k)?),
            None => (parse_plain::<i64>(numbers)?, 0),
        };
        let token = Self { index: TimelineIndex { n, k } };
        if k > 0 || (k == 0 && numbers.contains('_')) {
            return Err(InvalidToken);
        }
        Ok(token)
    }
}

/// What `/messages?from=` and its like accept: a page token, or a sync token that stands for the end
/// of the room as that sync saw it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FromToken {
    /// A point of the room's timeline.
    Page(PageToken),
    /// The end of what a sync had seen.
    Sync(SyncToken),
}

impl FromStr for FromToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.starts_with(PAGE_PREFIX) {
            text.parse().map(Self::Page)
        } else {
            text.parse().map(Self::Sync)
        }
    }
}

/// Parses a decimal number as `Display` writes it: no plus sign, no leading zeros.
fn parse_plain<T: FromStr + fmt::Display>(text: &str) -> Result<T, InvalidToken> {
    let number = text.parse::<T>().map_err(|_| InvalidToken)?;
    if number.to_string() == text { Ok(number) } else { Err(InvalidToken) }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one varint from the front of `bytes`; only the shortest form of a number is accepted.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, InvalidToken> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(InvalidToken)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return Err(InvalidToken);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(InvalidToken) } else { Ok(value) };
        }
    }
    Err(InvalidToken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_sync_token() -> impl Strategy<Value = SyncToken> {
        let entries = proptest::collection::vec((any::<u16>(), any::<u64>()), 0..4);
        let ephemeral = proptest::option::of(any::<(u64, u64)>());
        (entries, any::<u64>(), ephemeral).prop_map(|(entries, to_device, ephemeral)| {
            let view = entries.into_iter().map(|(writer, seq)| Position { writer, seq }).collect();
            SyncToken { view, to_device, ephemeral }
        })
    }

    proptest! {
        #[test]
        fn a_sync_token_survives_its_text_form(token in any_sync_token()) {
            prop_assert_eq!(token.to_string().parse(), Ok(token.clone()));
            prop_assert_eq!(token.to_string().parse(), Ok(FromToken::Sync(token)));
        }

        #[test]
        fn a_page_token_survives_its_text_form(n in any::<i64>(), k in i32::MIN..=0) {
            let token = PageToken::before(TimelineIndex { n, k });
            prop_assert_eq!(token.to_string().parse(), Ok(token));
            prop_assert_eq!(token.to_string().parse(), Ok(FromToken::Page(token)));
        }

        #[test]
        fn text_that_parses_as_a_token_is_the_one_text_of_that_token(tail in "[A-Za-z0-9_-]{0,24}") {
            if let Ok(token) = format!("m2_{tail}").parse::<SyncToken>() {
                prop_assert_eq!(token.to_string(), format!("m2_{tail}"));
            }
            if let Ok(token) = format!("t{tail}").parse::<PageToken>() {
                prop_assert_eq!(token.to_string(), format!("t{tail}"));
            }
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(text in any::<String>()) {
            prop_assert!(text.starts_with("m2_") || text.parse::<SyncToken>().is_err());
            prop_assert!(text.starts_with('t') || text.parse::<PageToken>().is_err());
        }

        #[test]
        fn the_point_after_an_event_lies_between_it_and_the_next(n in -5..5_i64, k in -5..=0_i32) {
            let here = TimelineIndex { n, k };
            let after = PageToken::after(here).index;
            prop_assert!(here < after);
            let next = if k == 0 { TimelineIndex { n: n + 1, k: i32::MIN } } else { TimelineIndex { n, k: k + 1 } };
            prop_assert!(after <= next);
        }
    }

    #[test]
    fn known_garbage_is_refused() {
        for text in [
            "",
            "s123",
            "m2_",
            "m2_AA",
            "m1_AAA",
            "m2_AQAA",
            "m2_AQABAAA",
            "m2_!!",
            "m2_gICAgICAgICAAQ",
        ] {
            assert_eq!(text.parse::<SyncToken>(), Err(InvalidToken), "{text}");
        }
        for text in
            ["", "t", "t_", "t+1", "t01", "t1_", "t1_0", "t1_1", "1", "t9223372036854775808"]
        {
            assert_eq!(text.parse::<PageToken>(), Err(InvalidToken), "{text}");
        }
    }
}
