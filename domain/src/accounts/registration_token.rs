//! Words that allow to register: the configured one, and those of the table.

use millrace_store::{
    Read, Result, Tx, rows::account::RegistrationToken, tables::REGISTRATION_TOKENS,
};
use subtle::ConstantTimeEq;

use super::{Accounts, authenticate::is_over};

/// Whether somebody could register with `token` now.
///
/// # Errors
/// Where the store fails.
pub async fn is_registration_token_valid(accounts: &Accounts, token: &str) -> Result<bool> {
    if is_configured(accounts, token) {
        return Ok(true);
    }
    let row = accounts.env.store.snapshot().get(&REGISTRATION_TOKENS, token, ()).await?;
    Ok(row.is_some_and(|row| is_good(&row, accounts.now_ms())))
}

/// Whether anybody needs a token to register.
pub(super) fn is_required(accounts: &Accounts) -> bool {
    accounts.settings.registration_token.is_some()
}

/// Counts one use, in the transaction that registers; false where the token is used up.
pub(super) async fn spend(accounts: &Accounts, tx: &Tx, token: &str) -> Result<bool> {
    if is_configured(accounts, token) {
        return Ok(true);
    }
    let row = tx.get(&REGISTRATION_TOKENS, token, ()).await?;
    let Some(row) = row.filter(|row| is_good(row, accounts.now_ms())) else { return Ok(false) };
    let row = RegistrationToken { uses: row.uses + 1, ..row };
    tx.put(&REGISTRATION_TOKENS, token, (), &row);
    Ok(true)
}

fn is_configured(accounts: &Accounts, token: &str) -> bool {
    let configured = accounts.settings.registration_token.as_ref();
    configured.is_some_and(|word| word.as_bytes().ct_eq(token.as_bytes()).into())
}

fn is_good(row: &RegistrationToken, now_ms: u64) -> bool {
    !is_over(row.expires_ms, now_ms) && row.uses_allowed.is_none_or(|most| row.uses < most)
}
