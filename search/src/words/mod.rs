//! Cutting text into what can be looked up, in every script.
//!
//! A word of a script that puts spaces between words is one token. Where a script puts none, each two
//! neighbouring characters are one, so that any part of a sentence is found, wherever its words
//! begin. All is compared without case, accents, vowel points and width.

mod fold;
mod script;
mod terms;
mod tokens;

pub use self::{
    fold::fold,
    terms::{Part, TermError, Terms},
    tokens::{Analyzer, Kind, Token, tokens},
};
