//! In whose name a service asks (spec: Application Service API, Identity assertion).

use millrace_domain::accounts::{ByService, Requester};
use millrace_store::{
    Read,
    tables::{ACCOUNTS, DEVICES},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{AppServices, Service};

/// Why a service may not ask in a name.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is not the name of a user.
    #[error("{0:?} is not a user ID")]
    NoUserId(String),
    /// The user is in no namespace of the service.
    #[error("the user {0} is not in a namespace of the application service")]
    NotYours(OwnedUserId),
    /// There is no such user.
    #[error("the application service has not registered the user {0}")]
    Unregistered(OwnedUserId),
    /// The user was deactivated.
    #[error("the user {0} has been deactivated")]
    Deactivated(OwnedUserId),
    /// The user has no such device.
    #[error("the user {0} has no device {1}")]
    UnknownDevice(OwnedUserId, OwnedDeviceId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// In whose name a request is made, as it says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asserted<'a> {
    /// `user_id`.
    pub user: Option<&'a str>,
    /// `device_id`, or `org.matrix.msc3202.device_id`.
    pub device: Option<&'a str>,
}

impl AppServices {
    /// Who makes a request of `service`: its sender, or the user that it names.
    ///
    /// # Errors
    /// As [`IdentityError`] says.
    pub async fn requester(
        &self,
        service: &Service,
        asserted: Asserted<'_>,
    ) -> Result<Requester, IdentityError> {
        let user = match asserted.user {
            Some(user) => {
                UserId::parse(user).map_err(|_| IdentityError::NoUserId(user.to_owned()))?
            }
            None => service.sender.clone(),
        };
        if !service.has_user(&user) {
            return Err(IdentityError::NotYours(user));
        }
        let snapshot = self.rooms.env.store.snapshot();
        let account = snapshot.get(&ACCOUNTS, &user, ()).await?;
        let account = account.ok_or_else(|| IdentityError::Unregistered(user.clone()))?;
        if account.deactivated.is_some() {
            return Err(IdentityError::Deactivated(user));
        }
        let device = match asserted.device {
            Some(device) => {
                let device = <&DeviceId>::from(device);
                if snapshot.get(&DEVICES, &user, device).await?.is_none() {
                    return Err(IdentityError::UnknownDevice(user, device.to_owned()));
                }
                device.to_owned()
            }
            // No device has a space in its name: what it sends is told from what devices send.
            None => OwnedDeviceId::from(format!("application service {}", service.id)),
        };
        let by = ByService { id: service.id.clone(), has_device: asserted.device.is_some() };
        Ok(Requester {
            user,
            device,
            is_guest: account.guest,
            admin: account.admin,
            suspended: account.suspended,
            locked: account.locked,
            token: service.as_token,
            service: Some(by),
        })
    }

    /// Whether requests of a service in the name of a user are not counted.
    #[must_use]
    pub fn is_unlimited(service: &Service, user: Option<&str>) -> bool {
        !service.rate_limited || user.is_none_or(|user| user == service.sender)
    }
}
