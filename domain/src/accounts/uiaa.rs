//! User-interactive authentication: a dialogue in stages before something that a token alone does
//! not allow (client-server API, "User-Interactive Authentication API").
//!
//! Dialogues under way are kept in memory. After a restart a client meets a new one at its next
//! step, and answers for its stages again; nothing that was finished depends on one.

use std::{collections::BTreeMap, num::NonZeroUsize};

use futures::future::BoxFuture;
use lru::LruCache;
use parking_lot::Mutex;
use ruma::{
    OwnedUserId, UserId,
    api::{
        client::uiaa::{
            AuthData, AuthFlow, AuthType, LoginTermsParams, PolicyDefinition, PolicyTranslation,
            ThirdpartyIdCredentials, UiaaInfo,
        },
        error::{ErrorKind, StandardErrorBody},
    },
    thirdparty::Medium,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{
    Accounts, LogInError,
    authenticate::is_over,
    expiry_ms, is_registration_token_valid,
    log_in::{check_password, identified_user},
    password::HashError,
    registration_token,
};
use crate::threepids::{self, Proved, Purpose};

/// Dialogues remembered at once; beyond, the one unused for longest is forgotten.
const DIALOGUES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const SESSION_LEN: usize = 24;
/// [`Challenge::operation`] of registering.
const REGISTER: &str = "register";
/// What is said of a password that is not the user's, whoever was named.
const WRONG_PASSWORD: &str = "Wrong username or password";

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

    /// To register an account, by what the settings ask for: the same stages first in every flow,
    /// then an address or none.
    #[must_use]
    pub fn registration(accounts: &Accounts) -> Self {
        let mut common = Vec::new();
        if registration_token::is_required(accounts) {
            common.push(AuthType::RegistrationToken);
        }
        if accounts.captcha.is_some() {
            common.push(AuthType::ReCaptcha);
        }
        if !accounts.settings.terms.is_empty() {
            common.push(AuthType::Terms);
        }
        let flow = |stages: Vec<AuthType>| {
            let stages: Vec<AuthType> = common.iter().cloned().chain(stages).collect();
            if stages.is_empty() { vec![AuthType::Dummy] } else { stages }
        };
        let flows = address_flows(&accounts.settings.threepids).into_iter().map(flow).collect();
        Self { operation: REGISTER.to_owned(), user: None, flows }
    }

    /// To set a new password without having the old one, by an address of the account. Nothing where
    /// no messages can be sent.
    #[must_use]
    pub fn password_reset(accounts: &Accounts) -> Option<Self> {
        let settings = &accounts.settings.threepids;
        let media = [(Medium::Email, AuthType::EmailIdentity), (Medium::Msisdn, AuthType::Msisdn)];
        let sent = media.into_iter().filter(|(medium, _)| settings.sends(medium));
        let flows: Vec<_> = sent.map(|(_, stage)| vec![stage]).collect();
        let operation = "account/password".to_owned();
        (!flows.is_empty()).then_some(Self { operation, user: None, flows })
    }

    /// What addresses are proved for in this dialogue.
    fn purpose(&self) -> Purpose {
        if self.operation == REGISTER { Purpose::Register } else { Purpose::ResetPassword }
    }

    /// The same, with single sign-on in place of the password for who may have none.
    fn with_sso(&self, accounts: &Accounts) -> Self {
        let mut challenge = self.clone();
        let by_password = challenge.user.is_some() && challenge.has(&AuthType::Password);
        if by_password && accounts.settings.sso && !challenge.has(&AuthType::Sso) {
            challenge.flows.push(vec![AuthType::Sso]);
        }
        challenge
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
    /// The addresses that were proved, at most one of each medium.
    pub threepids: Vec<Proved>,
    /// Whether the documents were agreed to.
    pub agreed: bool,
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
    /// Nobody can tell whether a riddle was solved.
    #[error("the captcha could not be checked: {0}")]
    Captcha(String),
    /// The store failed.
    #[error("could not check the authentication")]
    Store(#[from] millrace_store::Error),
}

/// Asks whether it was a person who solved a riddle (`m.login.recaptcha`).
pub trait Captcha: Send + Sync + 'static {
    /// The key that clients show the riddle with.
    fn public_key(&self) -> &str;
    /// Whether `response` is the solution of a person, or why nobody can tell.
    fn is_solved<'a>(&'a self, response: &'a str) -> BoxFuture<'a, Result<bool, String>>;
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
    challenge: Challenge,
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
    let challenge = &challenge.with_sso(accounts);
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
        let other = &known.challenge;
        let same = other.operation == challenge.operation && other.user == challenge.user;
        let good = same && !is_over(Some(known.expires_ms), now_ms);
        good.then(|| (session.to_owned(), known))
    });
    found.unwrap_or_else(|| {
        let dialogue = Dialogue {
            challenge: challenge.clone(),
            completed: Vec::new(),
            proof: Proof::default(),
            expires_ms: expiry_ms(now_ms, accounts.settings.lifetimes.uiaa_session),
        };
        (accounts.env.random_text(SESSION_LEN), dialogue)
    })
}

/// How a stage went that was taken outside of the client, on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageStep {
    /// It is done; the client goes on with the dialogue.
    Completed,
    /// It is not.
    Failed(&'static str),
    /// There is no such dialogue, or it has no such stage.
    Unknown,
}

/// What an address is proved for in a dialogue that has this stage about one; none where there is no
/// such dialogue.
#[must_use]
pub fn address_purpose(accounts: &Accounts, session: &str, stage: &AuthType) -> Option<Purpose> {
    let dialogue = find(accounts, session)?;
    dialogue.challenge.has(stage).then(|| dialogue.challenge.purpose())
}

/// Whether a dialogue has this stage, for a page that is about to show it.
#[must_use]
pub fn has_stage(accounts: &Accounts, session: &str, stage: &AuthType) -> bool {
    find(accounts, session).is_some_and(|dialogue| dialogue.challenge.has(stage))
}

/// Takes one step of a dialogue on a page, without the request that it is for (spec: Fallback).
///
/// # Errors
/// Where the step cannot be checked.
pub async fn step_on_page(
    accounts: &Accounts,
    session: &str,
    auth: &AuthData,
) -> Result<PageStep, UiaaError> {
    let stage = auth.auth_type();
    let dialogue = find(accounts, session);
    let dialogue = dialogue.filter(|known| stage.is_some_and(|stage| known.challenge.has(&stage)));
    let Some(Dialogue { challenge, mut proof, .. }) = dialogue else {
        return Ok(PageStep::Unknown);
    };
    match step(accounts, &challenge, auth, &mut proof).await {
        Ok(Step::Completed(stage)) => {
            complete(accounts, session, stage, Some(proof));
            Ok(PageStep::Completed)
        }
        Ok(Step::Asked) => Ok(PageStep::Failed("Nothing was entered")),
        Ok(Step::Failed(_, why)) => Ok(PageStep::Failed(why)),
        // On a page somebody types the name, and may have mistyped it.
        Err(UiaaError::OtherUser) => Ok(PageStep::Failed(WRONG_PASSWORD)),
        Err(error) => Err(error),
    }
}

/// Takes the stage of single sign-on: the provider says who it is.
#[must_use]
pub fn signed_on(accounts: &Accounts, session: &str, user: &UserId) -> PageStep {
    let Some(dialogue) = find(accounts, session) else { return PageStep::Unknown };
    if !dialogue.challenge.has(&AuthType::Sso) {
        return PageStep::Unknown;
    }
    if dialogue.challenge.user.as_deref() != Some(user) {
        return PageStep::Failed("You have signed on as somebody else");
    }
    complete(accounts, session, AuthType::Sso, None);
    PageStep::Completed
}

fn find(accounts: &Accounts, session: &str) -> Option<Dialogue> {
    let known = accounts.uiaa.0.lock().get(session).cloned()?;
    (!is_over(Some(known.expires_ms), accounts.now_ms())).then_some(known)
}

fn complete(accounts: &Accounts, session: &str, stage: AuthType, proof: Option<Proof>) {
    if let Some(known) = accounts.uiaa.0.lock().get_mut(session) {
        if !known.completed.contains(&stage) {
            known.completed.push(stage);
        }
        if let Some(proof) = proof {
            known.proof = proof;
        }
    }
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
            let user = identified_user(accounts, &data.identifier).await?;
            if challenge.user.is_some() && user.is_some() && user != challenge.user {
                return Err(UiaaError::OtherUser);
            }
            match check_password(accounts, user.as_deref(), &data.password).await {
                Ok(_) => None,
                Err(LogInError::Password(error)) => return Err(error.into()),
                Err(LogInError::Store(error)) => return Err(error.into()),
                Err(
                    LogInError::WrongPassword
                    | LogInError::LoginToken
                    | LogInError::Deactivated
                    | LogInError::Locked,
                ) => Some(WRONG_PASSWORD),
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
        AuthData::EmailIdentity(data) => {
            let credentials = &data.thirdparty_id_creds;
            return address(accounts, challenge, (stage, Medium::Email), credentials, proof).await;
        }
        AuthData::Msisdn(data) => {
            let credentials = &data.thirdparty_id_creds;
            return address(accounts, challenge, (stage, Medium::Msisdn), credentials, proof).await;
        }
        AuthData::ReCaptcha(data) => {
            let captcha = accounts.captcha.as_ref();
            let captcha = captcha.ok_or_else(|| UiaaError::Captcha("not configured".to_owned()))?;
            let solved = captcha.is_solved(&data.response).await.map_err(UiaaError::Captcha)?;
            (!solved).then_some("The riddle was not solved")
        }
        AuthData::Terms(_) => {
            proof.agreed = true;
            None
        }
        AuthData::Dummy(_) => None,
        _ => Some("This stage cannot be completed here"),
    };
    Ok(failed.map_or(Step::Completed(stage), |why| Step::Failed(ErrorKind::Forbidden, why)))
}

/// The stages about addresses. Clients ask again and again until the user has followed the link.
async fn address(
    accounts: &Accounts,
    challenge: &Challenge,
    (stage, medium): (AuthType, Medium),
    credentials: &ThirdpartyIdCredentials,
    proof: &mut Proof,
) -> Result<Step, UiaaError> {
    let (sid, secret) = (credentials.sid.as_str(), credentials.client_secret.as_str());
    let read = accounts.env.store.snapshot();
    let found = threepids::proved(accounts, &read, challenge.purpose(), (sid, secret)).await?;
    let Some(found) = found.filter(|found| *found.address.medium() == medium) else {
        return Ok(Step::Failed(ErrorKind::Unauthorized, "The address is not validated yet"));
    };
    proof.threepids.retain(|known| *known.address.medium() != medium);
    proof.threepids.push(found);
    Ok(Step::Completed(stage))
}

/// The stages about addresses in each way to register: those that are required, and as long as none
/// is, those that are offered.
fn address_flows(settings: &threepids::Settings) -> Vec<Vec<AuthType>> {
    let (email, msisdn) = (AuthType::EmailIdentity, AuthType::Msisdn);
    let required = |medium: &Medium| settings.required.contains(medium);
    match (required(&Medium::Email), required(&Medium::Msisdn)) {
        (true, true) => vec![vec![msisdn, email]],
        (true, false) => vec![vec![email]],
        (false, true) => vec![vec![msisdn]],
        (false, false) => {
            let mut flows = vec![Vec::new()];
            flows.extend(settings.email.then(|| vec![email.clone()]));
            flows.extend(settings.msisdn.then(|| vec![msisdn.clone()]));
            flows.extend((settings.email && settings.msisdn).then(|| vec![msisdn, email]));
            flows
        }
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
    let mut params: BTreeMap<String, Value> = BTreeMap::new();
    if let Some(captcha) = accounts.captcha.as_ref().filter(|_| challenge.has(&AuthType::ReCaptcha))
    {
        params
            .insert(AuthType::ReCaptcha.to_string(), json!({ "public_key": captcha.public_key() }));
    }
    if challenge.has(&AuthType::Terms) {
        let policies = accounts.settings.terms.iter().fold(BTreeMap::new(), |mut all, policy| {
            let version = || PolicyDefinition::new(policy.version.clone(), BTreeMap::new());
            let definition = all.entry(policy.id.clone()).or_insert_with(version);
            let text = PolicyTranslation::new(policy.name.clone(), policy.url.clone());
            definition.translations.insert(policy.language.clone(), text);
            all
        });
        let policies = serde_json::to_value(LoginTermsParams::new(policies));
        params.insert(AuthType::Terms.to_string(), policies.expect("policies are plain JSON"));
    }
    to_raw_value(&params).expect("policies are plain JSON")
}
