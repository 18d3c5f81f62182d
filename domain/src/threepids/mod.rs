//! Third-party identifiers: the e-mail addresses and phone numbers of users (spec: Client-Server
//! API, Adding account administrative contact information).
//!
//! An address is proved in a session: [`begin`] makes it and a word that is sent to the address, and
//! [`validate`] takes the word back. What a session proves is used up by [`add`], by registering, or
//! by [`reset_password`]; [`owner`] tells whose an address is. Never here: SMTP, identity servers.

mod add;
mod address;
mod bindings;
mod calling_codes;
mod owner;
mod remove;
mod reset_password;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod validate;

pub use millrace_store::rows::threepid::Purpose;

pub use self::{
    add::{AddError, add},
    address::{Address, InvalidAddress},
    bindings::{Binding, bindings, note_binding, note_unbinding},
    owner::{ThreepidInfo, owner, threepids},
    remove::remove,
    reset_password::{ResetError, reset_password},
    session::{BeginError, Begun, NewSession, TOKEN_LEN, begin, note_remote, note_sent},
    settings::{Allowed, Settings},
    validate::{Proved, ValidateError, Validating, note_validated, peek, remote_session, validate},
};
pub(crate) use self::{
    add::{InUse, claim, count_change},
    remove::remove_all,
    validate::proved,
};
