//! User-interactive authentication: a dialogue in stages before something that a token alone does
//! not allow (client-server API, "User-Interactive Authentication API").
//!
//! Dialogues under way are kept in memory. After a restart a client meets a new one at its next
//! step, and answers for its stages again; nothing that was finished depends on one.

use std::{collections::BTreeMap, num::NonZeroUsize};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{
    OwnedUserId, UserId,
    api::{
        client::uiaa::{
            AuthData, AuthFlow, AuthType, LoginTermsParams, PolicyDefinition, PolicyTranslation,
            UiaaInfo, UserIdentifier,
        },
        error::{ErrorKind, StandardErrorBody},
    },
};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Accounts, LogInError,
    authenticate::is_over,
    expiry_ms, is_registration_token_valid,
    log_in::{check_password, named_user},
    password::HashError,
    registration_token,
};

/// Dialogues remembered at once; beyond, the one unused for longest is forgotten.
const DIALOGUES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const SESSION_LEN: usize = 24;

/// What somebody wants to do, and the ways to be allowed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What is to be done, as one text. A dialogue is good for one operation.
    pub operation: String,
    /// Who it is done for, where that is known: only this user's password counts.
    pub user: Option<OwnedUserId>,
    /// The stages of each way.
    pub flows: Vec<Vec<AuthType>>,
}

impl Challenge {
    /// To confirm, by password, something that a session's owner does.
    #[must_use]
    pub fn password(operation: impl Into<String>, user: &UserId) -> Self {
        let flows = vec![vec![AuthType::Password]];
        Self { operation: operation.into(), user: Some(user.to_owned()), flows }
    }

    /// To register an account, by what the settings ask for.
    #[must_use]
    pub fn registration(accounts: &Accounts) -> Self {
        let mut stages = Vec::new();
        if registration_token::is_required(accounts) {
            stages.push(AuthType::RegistrationToken);
        }
        if !accounts.settings.terms.is_empty() {
            stages.push(AuthType::Terms);
        }
        if stages.is_empty() {
            stages.push(AuthType::Dummy);
        }
        Self { operation: "register".to_owned(), user: None, flows: vec![stages] }
    }

    fn is_met(&self, completed: &[AuthType]) -> bool {
        self.flows.iter().any(|flow| flow.iter().all(|stage| completed.contains(stage)))
    }

    fn has(&self, stage: &AuthType) -> bool {
        self.flows.iter().flatten().any(|known| known == stage)
    }
}

/// What a finished dialogue showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The registration token that was accepted.
    pub registration_token: Option<String>,
}

/// Why it is not done yet, or not at all.
#[derive(Debug, thiserror::Error)]
pub enum UiaaError {
    /// More is needed, or the last step failed: what the client is told.
    #[error("further authentication is needed")]
    Needed(Box<UiaaInfo>),
    /// The dialogue names another user than the one it is held for.
    #[error("the user of the authentication is not the one who asks")]
    OtherUser,
    /// A password could not be checked.
    #[error(transparent)]
    Password(#[from] HashError),
    /// The store failed.
    #[error("could not check the authentication")]
    Store(#[from] millrace_store::Error),
}

/// Dialogues under way.
#[derive(Debug)]
pub struct Dialogues(Mutex<LruCache<String, Dialogue>>);

impl Default for Dialogues {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(DIALOGUES_MAX)))
    }
}

#[derive(Debug, Clone)]
struct Dialogue {
    operation: String,
    user: Option<OwnedUserId>,
    completed: Vec<AuthType>,
    proof: Proof,
    expires_ms: u64,
}

/// How a stage went.
enum Step {
    Completed(AuthType),
    /// Nothing new was offered; the client asks what is left.
    Asked,
    Failed(ErrorKind, &'static str),
}

/// Takes one step of a dialogue. `Ok` ends it: the operation may be done, once.
///
/// # Errors
/// [`UiaaError::Needed`] while stages are left.
pub async fn authorise(
    accounts: &Accounts,
    challenge: &Challenge,
    auth: Option<&AuthData>,
) -> Result<Proof, UiaaError> {
    let (session, mut dialogue) = take_up(accounts, challenge, auth.and_then(AuthData::session));
    let Some(auth) = auth else {
        return Err(needed(accounts, challenge, session, dialogue, None));
    };
    let failure = match step(accounts, challenge, auth, &mut dialogue.proof).await? {
        Step::Completed(stage) => {
            if !dialogue.completed.contains(&stage) {
                dialogue.completed.push(stage);
            }
            None
        }
        Step::Asked => None,
        Step::Failed(kind, message) => Some(StandardErrorBody::new(kind, message.to_owned())),
    };
    if challenge.is_met(&dialogue.completed) {
        accounts.uiaa.0.lock().pop(&session);
        return Ok(dialogue.proof);
    }
    Err(needed(accounts, challenge, session, dialogue, failure))
}

/// The dialogue that a client goes on with, or a new one: for a new client, and in place of one
/// that is over, unknown, or about something else.
fn take_up(
    accounts: &Accounts,
    challenge: &Challenge,
    session: Option<&str>,
) -> (String, Dialogue) {
    let now_ms = accounts.now_ms();
    let found = session.and_then(|session| {
        let known = accounts.uiaa.0.lock().get(session).cloned()?;
        let same = known.operation == challenge.operation && known.user == challenge.user;
        let good = same && !is_over(Some(known.expires_ms), now_ms);
        good.then(|| (session.to_owned(), known))
    });
    found.unwrap_or_else(|| {
        let dialogue = Dialogue {
            operation: challenge.operation.clone(),
            user: challenge.user.clone(),
            completed: Vec::new(),
            proof: Proof::default(),
            expires_ms: expiry_ms(now_ms, accounts.settings.lifetimes.uiaa_session),
        };
        (accounts.env.random_text(SESSION_LEN), dialogue)
    })
}

async fn step(
    accounts: &Accounts,
    challenge: &Challenge,
    auth: &AuthData,
    proof: &mut Proof,
) -> Result<Step, UiaaError> {
    let Some(stage) = auth.auth_type() else { return Ok(Step::Asked) };
    if !challenge.has(&stage) {
        return Ok(Step::Failed(ErrorKind::Unrecognized, "This stage is not part of any flow"));
    }
    let failed = match auth {
        AuthData::Password(data) => {
            let user = identified(accounts, &data.identifier);
            if challenge.user.is_some() && user.is_some() && user != challenge.user {
                return Err(UiaaError::OtherUser);
            }
            match check_password(accounts, user.as_deref(), &data.password).await {
                Ok(_) => None,
                Err(LogInError::Password(error)) => return Err(error.into()),
                Err(LogInError::Store(error)) => return Err(error.into()),
                Err(
                    LogInError::WrongPassword | LogInError::LoginToken | LogInError::Deactivated,
                ) => Some("Wrong username or password"),
            }
        }
        AuthData::RegistrationToken(data) => {
            let valid = is_registration_token_valid(accounts, &data.token).await?;
            if valid {
                // A wrong one that comes later does not undo the stage, nor what is counted.
                proof.registration_token = Some(data.token.clone());
            }
            (!valid).then_some("The registration token is not valid")
        }
        AuthData::Dummy(_) | AuthData::Terms(_) => None,
        _ => Some("This stage cannot be completed here"),
    };
    Ok(failed.map_or(Step::Completed(stage), |why| Step::Failed(ErrorKind::Forbidden, why)))
}

/// The user that an identifier names. No account has third-party identifiers yet.
fn identified(accounts: &Accounts, identifier: &UserIdentifier) -> Option<OwnedUserId> {
    match identifier {
        UserIdentifier::Matrix(matrix) => named_user(accounts, &matrix.user),
        _ => None,
    }
}

/// Remembers the dialogue and tells the client how it stands.
fn needed(
    accounts: &Accounts,
    challenge: &Challenge,
    session: String,
    dialogue: Dialogue,
    failure: Option<StandardErrorBody>,
) -> UiaaError {
    let flows = challenge.flows.iter().map(|stages| AuthFlow::new(stages.clone())).collect();
    let mut info = UiaaInfo::new(flows);
    info.completed.clone_from(&dialogue.completed);
    info.params = Some(params(accounts, challenge));
    info.session = Some(session.clone());
    info.auth_error = failure.map(Box::new);
    accounts.uiaa.0.lock().put(session, dialogue);
    UiaaError::Needed(Box::new(info))
}

/// What a client needs to know for the stages.
fn params(accounts: &Accounts, challenge: &Challenge) -> Box<RawValue> {
    let mut params = BTreeMap::new();
    if challenge.has(&AuthType::Terms) {
        let policies = accounts.settings.terms.iter().fold(BTreeMap::new(), |mut all, policy| {
            let version = || PolicyDefinition::new(policy.version.clone(), BTreeMap::new());
            let definition = all.entry(policy.id.clone()).or_insert_with(version);
            let text = PolicyTranslation::new(policy.name.clone(), policy.url.clone());
            definition.translations.insert(policy.language.clone(), text);
            all
        });
        params.insert(AuthType::Terms.to_string(), LoginTermsParams::new(policies));
    }
    to_raw_value(&params).expect("policies are plain JSON")
}
