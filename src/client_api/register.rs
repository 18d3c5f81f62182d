//! Creating accounts: `/register` and what clients ask before it.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use millrace_appservices::Service;
use millrace_domain::accounts::{
    self, Credentials, DEVICE_NAME_BYTES_MAX, DeviceError, Login, NewAccount, NewDevice,
    RegisterError, Registered, check_available, is_registration_token_valid, parse_username,
    uiaa::{Challenge, authorise},
    upgrade_guest,
};
use ruma::api::{
    client::account::{
        check_registration_token_validity, get_username_availability,
        register::{LoginType, RegistrationKind, v3},
    },
    error::ErrorKind,
};
use serde_json::json;

use super::{
    account_limits::AccountLimits, appservices::exclusive, error::ApiError, extract::Matrix,
    limits::EndpointClass, requester::Claimed, router::MatrixRouter,
};
use crate::app::{AccountsPart, App};

/// Device IDs are chosen by clients; longer ones name nothing useful.
const DEVICE_ID_BYTES_MAX: usize = 255;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(register).matrix(available).matrix(token_validity)
}

/// `POST /_matrix/client/v3/register`
#[tracing::instrument(name = "client.register", skip_all)]
async fn register(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    claimed: Claimed,
    Matrix(request): Matrix<v3::Request>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Registration)?;
    let device = new_device(
        request.device_id.clone(),
        request.initial_device_display_name.clone(),
        request.refresh_token,
    )?;
    if request.login_type == Some(LoginType::ApplicationService) {
        let service = claimed.service()?;
        return Ok(response(register_by_service(&accounts, &service, request, device).await?));
    }
    let registered = match request.kind {
        RegistrationKind::User => register_user(&accounts, request, device).await?,
        RegistrationKind::Guest if accounts.settings.guests => {
            let guest = NewAccount::new(
                None,
                Credentials::Guest,
                NewDevice {
                    id: None, // Every other parameter is ignored for guests.
                    ..device
                },
            );
            accounts::register(&accounts, guest).await?
        }
        RegistrationKind::Guest => {
            let (kind, message) = (ErrorKind::GuestAccessForbidden, "Guests are not allowed here");
            return Err(ApiError::new(StatusCode::FORBIDDEN, kind, message));
        }
        other => return Err(ApiError::invalid_param(format_args!("Unknown kind {other}"))),
    };
    Ok(response(registered))
}

/// An account without a password, in a namespace of the service.
async fn register_by_service(
    accounts: &AccountsPart,
    service: &Service,
    request: v3::Request,
    device: NewDevice,
) -> Result<Registered, ApiError> {
    let name = request.username.ok_or_else(|| ApiError::missing_param("missing username"))?;
    let user = parse_username(&name, &accounts.env.identity.name).map_err(RegisterError::from)?;
    if !service.has_user(&user) {
        return Err(exclusive(format_args!("{user} is in no namespace of the service")));
    }
    let new = NewAccount {
        login: (!request.inhibit_login).then_some(device),
        ..NewAccount::new(Some(name), Credentials::Service, NewDevice::default())
    };
    Ok(accounts::register(accounts, new).await?)
}

async fn register_user(
    accounts: &AccountsPart,
    request: v3::Request,
    device: NewDevice,
) -> Result<Registered, ApiError> {
    if !accounts.settings.registration {
        return Err(ApiError::forbidden("Registration is disabled on this server"));
    }
    if let (Some(name), None) = (&request.username, &request.guest_access_token) {
        check_available(accounts, name).await?;
    }
    let challenge = Challenge::registration(accounts);
    let proof = authorise(accounts, &challenge, request.auth.as_ref()).await?;
    let password = request.password.filter(|password| !password.is_empty());
    let password = password.ok_or_else(|| ApiError::missing_param("missing password"))?;
    if let Some(guest_token) = &request.guest_access_token {
        let name = request.username.ok_or_else(|| ApiError::missing_param("missing username"))?;
        let login = upgrade_guest(accounts, guest_token, &name, &password, &device).await?;
        return Ok(Registered { user: login.user.clone(), login: Some(login) });
    }
    let new = NewAccount {
        login: (!request.inhibit_login).then_some(device),
        registration_token: proof.registration_token,
        threepids: proof.threepids,
        agreed: proof.agreed,
        ..NewAccount::new(request.username, Credentials::Password(password), NewDevice::default())
    };
    Ok(accounts::register(accounts, new).await?)
}

fn response(Registered { user, login }: Registered) -> Response {
    let Some(Login { device, access_token, refresh_token, expires_in, .. }) = login else {
        // ruma's type would say that there is a device, called null.
        return Json(json!({ "user_id": user })).into_response();
    };
    let mut response = v3::Response::new(user);
    response.device_id = Some(device);
    response.access_token = Some(access_token);
    (response.refresh_token, response.expires_in) = (refresh_token, expires_in);
    Matrix(response).into_response()
}

/// What a client says about a new device, as far as it can be used.
pub(super) fn new_device(
    id: Option<ruma::OwnedDeviceId>,
    display_name: Option<String>,
    refreshes: bool,
) -> Result<NewDevice, ApiError> {
    let usable = |id: &ruma::OwnedDeviceId| (1..=DEVICE_ID_BYTES_MAX).contains(&id.as_str().len());
    if id.as_ref().is_some_and(|id| !usable(id)) {
        let most = DEVICE_ID_BYTES_MAX;
        return Err(ApiError::invalid_param(format_args!("device_id must have 1 to {most} bytes")));
    }
    if display_name.as_ref().is_some_and(|name| name.len() > DEVICE_NAME_BYTES_MAX) {
        return Err(DeviceError::NameTooLong.into());
    }
    Ok(NewDevice { id, display_name, refreshes })
}

/// `GET /_matrix/client/v3/register/available`
#[tracing::instrument(name = "client.register.available", skip_all)]
async fn available(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    Matrix(request): Matrix<get_username_availability::v3::Request>,
) -> Result<Matrix<get_username_availability::v3::Response>, ApiError> {
    limits.check_address(EndpointClass::Registration)?;
    check_available(&accounts, &request.username).await?;
    Ok(Matrix(get_username_availability::v3::Response::new(true)))
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
#[tracing::instrument(name = "client.register.token_validity", skip_all)]
async fn token_validity(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    Matrix(request): Matrix<check_registration_token_validity::v1::Request>,
) -> Result<Matrix<check_registration_token_validity::v1::Response>, ApiError> {
    limits.check_address(EndpointClass::Registration)?;
    if !accounts.settings.registration {
        return Err(ApiError::forbidden("Registration is disabled on this server"));
    }
    let valid =
        is_registration_token_valid(&accounts, &request.token).await.map_err(ApiError::internal)?;
    Ok(Matrix(check_registration_token_validity::v1::Response::new(valid)))
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Username(_) => Self::bad_request(ErrorKind::InvalidUsername, error),
            RegisterError::Reserved(_) => Self::bad_request(ErrorKind::Exclusive, error),
            RegisterError::Taken(_) => Self::bad_request(ErrorKind::UserInUse, error),
            RegisterError::AddressTaken(_) => Self::bad_request(ErrorKind::ThreepidInUse, error),
            RegisterError::RegistrationToken | RegisterError::NotThatGuest => {
                Self::forbidden(error)
            }
            RegisterError::Password(error) => error.into(),
            RegisterError::Store(_) => Self::internal(error),
        }
    }
}
