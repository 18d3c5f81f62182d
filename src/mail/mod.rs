//! E-mails of this server: what they say (`templates`) and how they leave (`smtp`).

mod digests;
mod messages;
mod smtp;
mod templates;

pub use self::{
    digests::{Digests, UNSUBSCRIBE_PATH, unsubscribe_proof},
    messages::{MailSetupError, Messages, SUBMIT_PATH},
    smtp::{Mail, Mailer, MailerSettings, SendError, SetupError, is_mailbox},
    templates::{Page, TemplateError, Templates, Text, escape},
};
