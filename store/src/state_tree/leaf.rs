//! Entries, and how a leaf writes them.
//!
//! ```text
//! groups, then for each: type, entries, then for each: state key, event number
//! ```
//! Numbers are LEB128, texts have their length in front. Entries are sorted by type, then state
//! key, each type named once.

use super::layout::ENTRY_WEIGHT;

/// A key of room state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey {
    /// The event's `type`.
    pub event_type: String,
    /// The event's `state_key`.
    pub state_key: String,
}

/// One entry of a state, as it lies in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The event's `type`.
    pub event_type: &'a str,
    /// The event's `state_key`.
    pub state_key: &'a str,
    /// The event's number.
    pub event: u64,
}

impl<'a> Entry<'a> {
    /// What entries are sorted by.
    pub(super) fn key(&self) -> (&'a str, &'a str) {
        (self.event_type, self.state_key)
    }

    /// The key on its own.
    #[must_use]
    pub fn to_key(&self) -> StateKey {
        StateKey { event_type: self.event_type.to_owned(), state_key: self.state_key.to_owned() }
    }

    /// Its part of the weight that decides whether entries share a leaf.
    pub(super) fn weight(&self) -> u64 {
        (self.event_type.len() + self.state_key.len()) as u64 + ENTRY_WEIGHT
    }
}

/// How much a subtree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Total {
    pub count: u64,
    pub weight: u64,
}

impl Total {
    pub fn of(entries: &[Entry<'_>]) -> Self {
        Self::of_each(entries.iter().copied())
    }

    pub fn of_each<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Self {
        entries.fold(Self::default(), |total, entry| Self {
            count: total.count + 1,
            weight: total.weight + entry.weight(),
        })
    }

    /// This, with a part of it replaced. Only a corrupt tree can hold less than its parts.
    pub fn replace(self, old: Self, new: Self) -> Self {
        Self {
            count: self.count.saturating_sub(old.count).saturating_add(new.count),
            weight: self.weight.saturating_sub(old.weight).saturating_add(new.weight),
        }
    }
}

/// Appends a number.
pub(super) fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front of `input`.
pub(super) fn take_number(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_number(input)?.try_into().ok()?;
    let (text, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(text)
}

/// Appends the form of a leaf that holds `entries`, which are sorted.
pub(super) fn encode(entries: &[Entry<'_>], out: &mut Vec<u8>) {
    let groups = || entries.chunk_by(|a, b| a.event_type == b.event_type);
    put_number(groups().count() as u64, out);
    for group in groups() {
        put_text(group[0].event_type, out);
        put_number(group.len() as u64, out);
        for entry in group {
            put_text(entry.state_key, out);
            put_number(entry.event, out);
        }
    }
}

/// Reads a leaf through once; the reason where it is not of that form.
pub(super) fn check(body: &[u8]) -> Result<(), &'static str> {
    let mut last: Option<(&str, &str)> = None;
    let mut entries = RawEntries::new(body).ok_or("it ends too early")?;
    while entries.left() > 0 {
        let (event_type, state_key, event) = entries.next().ok_or("it ends too early")?;
        let text = |bytes| str::from_utf8(bytes).map_err(|_| "it holds text that is not UTF-8");
        let entry = Entry { event_type: text(event_type)?, state_key: text(state_key)?, event };
        if last.is_some_and(|last| last >= entry.key()) {
            return Err("its entries are not in order");
        }
        last = Some(entry.key());
    }
    match (last, entries.rest.is_empty()) {
        (None, _) => Err("it has no entries"),
        (_, false) => Err("bytes follow its end"),
        (Some(_), true) => Ok(()),
    }
}

/// The entries of a leaf that was checked.
pub(super) fn entries(body: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    RawEntries::new(body).into_iter().flatten().map_while(|(event_type, state_key, event)| {
        let text = |bytes| str::from_utf8(bytes).ok();
        Some(Entry { event_type: text(event_type)?, state_key: text(state_key)?, event })
    })
}

/// The event of one key in a leaf that was checked.
pub(super) fn find(body: &[u8], event_type: &str, state_key: &str) -> Option<u64> {
    let mut rest = body;
    for _ in 0..take_number(&mut rest)? {
        let found = take_text(&mut rest)? == event_type.as_bytes();
        for _ in 0..take_number(&mut rest)? {
            let key = take_text(&mut rest)?;
            let event = take_number(&mut rest)?;
            if found && key == state_key.as_bytes() {
                return Some(event);
            }
        }
        if found {
            return None;
        }
    }
    None
}

/// Walks a leaf's bytes.
struct RawEntries<'a> {
    rest: &'a [u8],
    groups_left: u64,
    event_type: &'a [u8],
    entries_left: u64,
}

impl<'a> RawEntries<'a> {
    fn new(mut body: &'a [u8]) -> Option<Self> {
        let groups_left = take_number(&mut body)?;
        Some(Self { rest: body, groups_left, event_type: &[], entries_left: 0 })
    }

    /// Entries and groups that are still announced.
    fn left(&self) -> u64 {
        self.entries_left.saturating_add(self.groups_left)
    }
}

impl<'a> Iterator for RawEntries<'a> {
    type Item = (&'a [u8], &'a [u8], u64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.entries_left == 0 {
            self.groups_left = self.groups_left.checked_sub(1)?;
            self.event_type = take_text(&mut self.rest)?;
            self.entries_left = take_number(&mut self.rest)?;
        }
        self.entries_left = self.entries_left.checked_sub(1)?;
        let state_key = take_text(&mut self.rest)?;
        Some((self.event_type, state_key, take_number(&mut self.rest)?))
    }
}
