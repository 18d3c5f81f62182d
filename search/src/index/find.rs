//! Finding messages in the index.

use std::ops::Bound;

use ruma::{OwnedRoomId, OwnedUserId};
use tantivy::{
    DocAddress, Searcher, Term,
    collector::{
        Count, TopDocs,
        sort_key::{SortBySimilarityScore, SortByStaticFastValue},
    },
    query::{
        BooleanQuery, BoostQuery, ConstScoreQuery, EmptyQuery, InvertedIndexRangeQuery, Occur,
        PhraseQuery, Query as EngineQuery, RangeQuery, TermQuery, TermSetQuery,
    },
    schema::{Field, IndexRecordOption},
};

use super::{
    Index, IndexError,
    schema::{NUMBER, ORDER, ROOM, USER},
};
use crate::words::{Part, Terms};

/// Up to so many rooms are looked up one by one, which costs the rarer of rooms and words; more are
/// gathered first.
const ROOMS_ONE_BY_ONE_MAX: usize = 64;
/// What a word as it was typed counts for, beside one with another ending.
const AS_TYPED: f32 = 2.0;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// What has to occur.
    pub terms: Terms,
    /// In these rooms.
    pub rooms: Vec<OwnedRoomId>,
    /// In events of these types.
    pub kinds: Vec<String>,
    /// By these senders; by all where there are none.
    pub senders: Option<Vec<OwnedUserId>>,
    /// What is wanted first.
    pub order: Order,
}

/// What is wanted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What fits best.
    Rank,
    /// What was sent last.
    Recent,
}

/// Where among what is found a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// At the beginning.
    Start,
    /// After so many, by rank.
    Skip(usize),
    /// Before what was sent then, by time.
    Before(u64),
}

/// An event that matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its room.
    pub room: OwnedRoomId,
    /// Its number.
    pub number: u64,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// How well it fits.
    pub score: f32,
    /// Its place in time.
    pub order: u64,
}

/// A page of what matches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hits {
    /// The page.
    pub hits: Vec<Hit>,
    /// How many there are from where the page begins, itself included; before any look at who may
    /// see them.
    pub total: usize,
}

impl Index {
    /// The first `limit` of what matches, from `cursor` on.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn find(&self, query: &Query, cursor: Cursor, limit: usize) -> Result<Hits, IndexError> {
        let searcher = self.reader.searcher();
        let matching = self.matching(query, cursor);
        let skip = match cursor {
            Cursor::Skip(skip) => skip,
            Cursor::Start | Cursor::Before(_) => 0,
        };
        let top = TopDocs::with_limit(limit).and_offset(skip);
        let time = SortByStaticFastValue::<u64>::for_field(ORDER);
        let (found, all): (Vec<(f32, Option<u64>, DocAddress)>, usize) = match query.order {
            Order::Rank => {
                let top = top.order_by((SortBySimilarityScore, time));
                let (found, all) = searcher.search(&*matching, &(top, Count))?;
                (found.into_iter().map(|((score, time), at)| (score, time, at)).collect(), all)
            }
            Order::Recent => {
                let top = top.order_by((time, SortBySimilarityScore));
                let (found, all) = searcher.search(&*matching, &(top, Count))?;
                (found.into_iter().map(|((time, score), at)| (score, time, at)).collect(), all)
            }
        };
        let mut hits = Vec::with_capacity(found.len());
        for (score, order, at) in found {
            hits.extend(hit(&searcher, at, score, order.unwrap_or(0))?);
        }
        Ok(Hits { hits, total: all.saturating_sub(skip) })
    }

    fn matching(&self, query: &Query, cursor: Cursor) -> Box<dyn EngineQuery> {
        let fields = &self.fields;
        if query.terms.parts.is_empty() || query.rooms.is_empty() {
            return Box::new(EmptyQuery);
        }
        let mut all: Vec<(Occur, Box<dyn EngineQuery>)> = Vec::new();
        for part in &query.terms.parts {
            all.push((Occur::Must, part_query(fields.text, part)));
        }
        let mut only = |condition| {
            all.push((Occur::Must, Box::new(ConstScoreQuery::new(condition, 0.0))));
        };
        only(any_of(fields.room, query.rooms.iter().map(|room| room.as_str())));
        only(any_of(fields.kind, query.kinds.iter().map(String::as_str)));
        if let Some(senders) = &query.senders {
            only(any_of(fields.user, senders.iter().map(|sender| sender.as_str())));
        }
        if let Cursor::Before(order) = cursor {
            let end = Bound::Excluded(Term::from_field_u64(fields.order, order));
            only(Box::new(RangeQuery::new(Bound::Unbounded, end)));
        }
        Box::new(BooleanQuery::new(all))
    }
}

fn hit(
    searcher: &Searcher,
    at: DocAddress,
    score: f32,
    order: u64,
) -> Result<Option<Hit>, IndexError> {
    let columns = searcher.segment_reader(at.segment_ord).fast_fields();
    let number = columns.u64(NUMBER)?.first(at.doc_id);
    let room = column_text(searcher, at, ROOM)?.and_then(|room| room.try_into().ok());
    let sender = column_text(searcher, at, USER)?.and_then(|sender| sender.try_into().ok());
    let place = number.zip(room).zip(sender);
    Ok(place.map(|((number, room), sender)| Hit { room, number, sender, score, order }))
}

/// What an entry has in a column of texts.
pub(super) fn column_text(
    searcher: &Searcher,
    at: DocAddress,
    field: &str,
) -> Result<Option<String>, IndexError> {
    let columns = searcher.segment_reader(at.segment_ord).fast_fields();
    let Some(column) = columns.str(field)? else { return Ok(None) };
    let Some(ord) = column.term_ords(at.doc_id).next() else { return Ok(None) };
    let mut text = String::new();
    let found = column.ord_to_str(ord, &mut text).map_err(tantivy::TantivyError::from)?;
    Ok(found.then_some(text))
}

fn term_query(field: Field, text: &str, record: IndexRecordOption) -> Box<dyn EngineQuery> {
    Box::new(TermQuery::new(Term::from_field_text(field, text), record))
}

pub(super) fn any_of<'t>(
    field: Field,
    texts: impl Iterator<Item = &'t str>,
) -> Box<dyn EngineQuery> {
    let texts: Vec<&str> = texts.collect();
    if texts.len() > ROOMS_ONE_BY_ONE_MAX {
        let terms = texts.into_iter().map(|text| Term::from_field_text(field, text));
        return Box::new(TermSetQuery::new(terms));
    }
    let queries = texts.into_iter().map(|text| term_query(field, text, IndexRecordOption::Basic));
    Box::new(BooleanQuery::union(queries.collect()))
}

/// Terms that begin with a text.
pub(super) fn beginning_with(field: Field, start: &str) -> Box<dyn EngineQuery> {
    let begin = Bound::Included(Term::from_field_text(field, start));
    let end = Bound::Excluded(Term::from_field_text(field, &format!("{start}{}", char::MAX)));
    Box::new(InvertedIndexRangeQuery::new(begin, end))
}

pub(super) fn phrase(field: Field, tokens: &[(usize, String)]) -> Box<dyn EngineQuery> {
    let terms = tokens.iter().map(|(at, text)| (*at, Term::from_field_text(field, text)));
    Box::new(PhraseQuery::new_with_offset(terms.collect()))
}

fn part_query(field: Field, part: &Part) -> Box<dyn EngineQuery> {
    let counted = IndexRecordOption::WithFreqs;
    match part {
        Part::Word { text, stem: None } => term_query(field, text, counted),
        Part::Word { text, stem: Some(stem) } => Box::new(BooleanQuery::union(vec![
            Box::new(BoostQuery::new(term_query(field, text, counted), AS_TYPED)),
            term_query(field, stem, counted),
        ])),
        Part::Character(character) => beginning_with(field, character),
        Part::Phrase(tokens) => phrase(field, tokens),
    }
}
