//! What mails and the pages behind their links say. Each text is a file that an administrator can
//! replace: `NAME.txt` and `NAME.html` of a mail, `NAME.html` of a page.
//!
//! `{{word}}` stands for a value, escaped in HTML. The first line of a `.txt` is the mail's subject.

use std::{collections::HashMap, fs, path::Path};

use super::Mail;

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name)))),+]
    };
}

/// The texts that are there without any folder.
const BUILT_IN: [(&str, &str); 20] = built_in![
    "register.txt",
    "register.html",
    "add.txt",
    "add.html",
    "reset_password.txt",
    "reset_password.html",
    "already_in_use.txt",
    "already_in_use.html",
    "unread.txt",
    "unread.html",
    "confirm_unsubscribe.html",
    "unsubscribed.html",
    "validated.html",
    "validated_next.html",
    "validation_failed.html",
    "confirm_password_reset.html",
    "password_reset_confirmed.html",
    "password_reset_confirmed_next.html",
    "failed.html",
    "layout.html",
];

/// A mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// To whoever registers.
    Register,
    /// To whoever adds an address.
    Add,
    /// To whoever forgot a password.
    ResetPassword,
    /// To the owner of an address that somebody wants to register or add.
    AlreadyInUse,
}

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The address is proved.
    Validated,
    /// The address is proved, and the client wants its user to go on somewhere.
    ValidatedNext,
    /// The link is no good.
    ValidationFailed,
    /// A button, so that no programme that looks through mails sets passwords free.
    ConfirmPasswordReset,
    /// The button was pressed.
    PasswordResetConfirmed,
    /// The button was pressed, and the client wants its user to go on somewhere.
    PasswordResetConfirmedNext,
    /// A button, so that no programme that looks through mails ends them.
    ConfirmUnsubscribe,
    /// There are no more mails.
    Unsubscribed,
    /// Something was not done, for a reason.
    Failed,
}

/// All texts.
#[derive(Debug, Clone)]
pub struct Templates {
    texts: HashMap<&'static str, String>,
    app: String,
    server: String,
}

/// A file of a template cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("email.templates_path: {file} cannot be read: {source}")]
pub struct TemplateError {
    file: String,
    source: std::io::Error,
}

impl Templates {
    /// The built-in texts, and those of `folder` in their place. `app` is what the service calls
    /// itself, `server` its server name.
    ///
    /// # Errors
    /// Where a file is there and cannot be read.
    pub fn load(folder: Option<&Path>, (app, server): (&str, &str)) -> Result<Self, TemplateError> {
        let mut texts = HashMap::new();
        if let Some(folder) = folder {
            fs::read_dir(folder)
                .map_err(|source| TemplateError { file: folder.display().to_string(), source })?;
        }
        for (name, built_in) in BUILT_IN {
            let own = folder.map(|folder| folder.join(name)).filter(|file| file.exists());
            let text = match own {
                Some(file) => fs::read_to_string(&file)
                    .map_err(|source| TemplateError { file: file.display().to_string(), source })?,
                None => built_in.to_owned(),
            };
            texts.insert(name, text);
        }
        Ok(Self { texts, app: app.to_owned(), server: server.to_owned() })
    }

    /// A mail to an address. `link` is where it leads.
    #[must_use]
    pub fn mail(&self, text: Text, to: &str, link: &str) -> Mail {
        let (plain, html) = match text {
            Text::Register => ("register.txt", "register.html"),
            Text::Add => ("add.txt", "add.html"),
            Text::ResetPassword => ("reset_password.txt", "reset_password.html"),
            Text::AlreadyInUse => ("already_in_use.txt", "already_in_use.html"),
        };
        let values = [("address", to), ("link", link)];
        let plain = self.fill(plain, &values, str::to_owned);
        let (subject, text) = plain.split_once('\n').unwrap_or((&plain, ""));
        let html = self.in_layout(html, &values);
        let (subject, text) = (subject.trim().to_owned(), text.trim_start().to_owned());
        Mail { to: to.to_owned(), subject, text, html, unsubscribe: None }
    }

    /// A mail about what is unread: `messages` as text and as HTML; `link` ends these mails.
    #[must_use]
    pub fn unread(&self, to: &str, messages: (&str, &str), link: &str) -> Mail {
        let values = [("link", link), ("messages", messages.0)];
        let plain = self.fill("unread.txt", &values, str::to_owned);
        let (subject, text) = plain.split_once('\n').unwrap_or((&plain, ""));
        let (subject, text) = (subject.trim().to_owned(), text.trim_start().to_owned());
        // The messages are HTML already: what is not known here stays as it is.
        let html = self.fill("unread.html", &values[..1], escape);
        let html = self.layout(&html.replacen("{{messages}}", messages.1, 1));
        Mail { to: to.to_owned(), subject, text, html, unsubscribe: Some(link.to_owned()) }
    }

    /// A page, with the values that it names.
    #[must_use]
    pub fn page(&self, page: Page, values: &[(&str, &str)]) -> String {
        let name = match page {
            Page::Validated => "validated.html",
            Page::ValidatedNext => "validated_next.html",
            Page::ValidationFailed => "validation_failed.html",
            Page::ConfirmPasswordReset => "confirm_password_reset.html",
            Page::PasswordResetConfirmed => "password_reset_confirmed.html",
            Page::PasswordResetConfirmedNext => "password_reset_confirmed_next.html",
            Page::ConfirmUnsubscribe => "confirm_unsubscribe.html",
            Page::Unsubscribed => "unsubscribed.html",
            Page::Failed => "failed.html",
        };
        self.in_layout(name, values)
    }

    fn in_layout(&self, name: &'static str, values: &[(&str, &str)]) -> String {
        self.layout(&self.fill(name, values, escape))
    }

    /// A page that says `content`, which is HTML.
    #[must_use]
    pub fn layout(&self, content: &str) -> String {
        self.fill("layout.html", &[], escape).replace("{{content}}", content)
    }

    fn fill(
        &self,
        name: &'static str,
        values: &[(&str, &str)],
        write: impl Fn(&str) -> String,
    ) -> String {
        let standing = [("app", &*self.app), ("server", &*self.server)];
        let template = self.texts.get(name).map(String::as_str).unwrap_or_default();
        // In one pass, so that a value in braces stands for itself.
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            filled.push_str(before);
            let Some((word, after)) = after.split_once("}}") else {
                filled.push_str("{{");
                rest = after;
                continue;
            };
            match standing.iter().chain(values).find(|(name, _)| *name == word.trim()) {
                Some((_, value)) => filled.push_str(&write(value)),
                None => filled.extend(["{{", word, "}}"]),
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

/// A text within HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_in_html_and_stand_for_themselves() {
        let templates = Templates::load(None, ("A&B", "example.org")).unwrap();
        let mail = templates.mail(Text::Register, "a@b.c", "https://e.org/?a=1&b={{app}}");
        assert_eq!(mail.subject, "A&B: confirm your e-mail address");
        assert!(mail.text.contains("https://e.org/?a=1&b={{app}}"), "{}", mail.text);
        assert!(mail.html.contains("https://e.org/?a=1&amp;b={{app}}"), "{}", mail.html);
        assert!(mail.html.contains("A&amp;B"));
    }

    #[test]
    fn every_text_is_whole() {
        let templates = Templates::load(None, ("app", "server")).unwrap();
        for text in [Text::Register, Text::Add, Text::ResetPassword, Text::AlreadyInUse] {
            let mail = templates.mail(text, "to", "link");
            assert!(!mail.subject.is_empty() && !mail.text.is_empty());
            for part in [mail.subject, mail.text, mail.html] {
                assert!(!part.contains("{{"), "{text:?}: {part}");
            }
        }
    }

    #[test]
    fn a_folder_replaces_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("add.txt"), "Subject\n\nHello {{ address }}").unwrap();
        let templates = Templates::load(Some(folder.path()), ("app", "server")).unwrap();
        let mail = templates.mail(Text::Add, "to@example.org", "link");
        assert_eq!((&*mail.subject, &*mail.text), ("Subject", "Hello to@example.org"));
        assert!(mail.html.contains("link"));
    }
}
