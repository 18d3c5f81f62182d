//! Finding people in the index.

use ruma::{OwnedRoomId, OwnedUserId};
use tantivy::{
    Term,
    collector::{
        TopDocs,
        sort_key::{SortBySimilarityScore, SortByString},
    },
    query::{BooleanQuery, ConstScoreQuery, EmptyQuery, Query, TermQuery},
    schema::IndexRecordOption,
};

use super::{
    Index, IndexError,
    find::{any_of, beginning_with, column_text, phrase},
    schema::{MEMBER, PUBLIC_MEMBER, ROOM, USER},
};
use crate::words::{Kind, fold, tokens};

/// Who is looked for.
#[derive(Debug, Clone)]
pub struct PeopleQuery {
    /// What was typed: beginnings of words of a name, or of a user ID.
    pub term: String,
    /// Rooms whose members are known to whoever searches, beside those of public ones.
    pub rooms: Vec<OwnedRoomId>,
}

/// A member of a room who matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user: OwnedUserId,
    /// Where they are.
    pub room: OwnedRoomId,
}

/// What each way to match counts for; together they order by the best.
const EXACT: f32 = 4.0;
const START: f32 = 2.0;
const WORDS: f32 = 1.0;

impl Index {
    /// So many of the memberships that match from the `skip`th on, the best first, all of one user
    /// beside each other.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn people(
        &self,
        query: &PeopleQuery,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Person>, IndexError> {
        let searcher = self.reader.searcher();
        let by = (SortBySimilarityScore, (SortByString::for_field(USER), tantivy::Order::Asc));
        let top = TopDocs::with_limit(limit).and_offset(skip).order_by(by);
        let mut people = Vec::new();
        for (_, at) in searcher.search(&*self.people_matching(query), &top)? {
            let user = column_text(&searcher, at, USER)?.and_then(|user| user.try_into().ok());
            let room = column_text(&searcher, at, ROOM)?.and_then(|room| room.try_into().ok());
            people.extend(user.zip(room).map(|(user, room)| Person { user, room }));
        }
        Ok(people)
    }

    fn people_matching(&self, query: &PeopleQuery) -> Box<dyn Query> {
        let fields = &self.fields;
        let Some(named) = self.named(&query.term) else { return Box::new(EmptyQuery) };
        let kind = |kind| {
            let term = Term::from_field_text(fields.kind, kind);
            Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>
        };
        let known = Box::new(BooleanQuery::intersection(vec![
            kind(MEMBER),
            any_of(fields.room, query.rooms.iter().map(|room| room.as_str())),
        ]));
        let visible = BooleanQuery::union(vec![kind(PUBLIC_MEMBER), known]);
        let visible = ConstScoreQuery::new(Box::new(visible), 0.0);
        Box::new(BooleanQuery::intersection(vec![named, Box::new(visible)]))
    }

    /// Who has the names that a term stands for.
    fn named(&self, term: &str) -> Option<Box<dyn Query>> {
        let fields = &self.fields;
        let worth = |query: Box<dyn Query>, score| {
            Box::new(ConstScoreQuery::new(query, score)) as Box<dyn Query>
        };
        if let Some(id) = term.strip_prefix('@') {
            let user = |text: &str| Term::from_field_text(fields.user, text);
            let exact = TermQuery::new(user(term), IndexRecordOption::Basic);
            let start = beginning_with(fields.user, &format!("@{}", id.to_lowercase()));
            return Some(Box::new(BooleanQuery::union(vec![
                worth(Box::new(exact), EXACT),
                worth(start, START),
            ])));
        }
        let whole = fold(term);
        let exact =
            TermQuery::new(Term::from_field_text(fields.whole, &whole), IndexRecordOption::Basic);
        let mut ways =
            vec![worth(Box::new(exact), EXACT), worth(beginning_with(fields.whole, &whole), START)];
        let mut words = Vec::new();
        for chunk in term.split_whitespace() {
            words.extend(self.words_of(chunk));
        }
        if words.is_empty() && whole.is_empty() {
            return None;
        }
        if !words.is_empty() {
            ways.push(worth(Box::new(BooleanQuery::intersection(words)), WORDS));
        }
        Some(Box::new(BooleanQuery::union(ways)))
    }

    /// Who has words in their names that begin as those of a chunk of the term do, or hold a run of
    /// characters of a script without spaces.
    fn words_of(&self, chunk: &str) -> Vec<Box<dyn Query>> {
        let mut words: Vec<Box<dyn Query>> = Vec::new();
        let mut run: Vec<(usize, String)> = Vec::new();
        for token in tokens(chunk) {
            match token.kind {
                Kind::Word => words.push(beginning_with(self.fields.name, &token.text)),
                Kind::Pair => run.push((token.position, token.text)),
                Kind::Tail => {}
            }
        }
        match run.as_slice() {
            [] => {}
            // Alone it may be one character, the first of a pair.
            [(_, text)] => words.push(beginning_with(self.fields.name, text)),
            [(first, _), ..] => {
                let first = *first;
                let placed: Vec<_> =
                    run.iter().map(|(at, text)| (at - first, text.clone())).collect();
                words.push(phrase(self.fields.name, &placed));
            }
        }
        words
    }
}
