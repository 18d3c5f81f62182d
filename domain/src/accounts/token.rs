//! Tokens: what a client holds, and what we store of it.

use millrace_store::rows::account::TokenHash;
use sha2::{Digest, Sha256};

use crate::Env;

/// Letters and digits of a token: close to 6 random bits each.
const TOKEN_LEN: usize = 43;

/// What a token is for. The prefix lets people and secret scanners recognise a leaked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Access,
    Refresh,
    Login,
}

/// A new random token and its hash.
pub(super) fn new_token(env: &Env, kind: TokenKind) -> (String, TokenHash) {
    let prefix = match kind {
        TokenKind::Access => "mra",
        TokenKind::Refresh => "mrr",
        TokenKind::Login => "mrl",
    };
    let text = format!("{prefix}_{}", env.random_text(TOKEN_LEN));
    let hash = hash_token(&text);
    (text, hash)
}

/// What is stored of a token. Tokens are random and long, so that a fast hash without salt cannot
/// be reversed.
#[must_use]
pub fn hash_token(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}
