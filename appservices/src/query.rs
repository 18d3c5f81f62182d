//! Asking services for users and aliases that are not there yet (spec: Application Service API,
//! Querying). A service that has one makes it before it answers.

use std::sync::Arc;

use millrace_store::{
    Read,
    tables::{ACCOUNTS, ALIASES},
};
use ruma::{RoomAliasId, UserId};

use crate::{
    AppServices, CallError, Service,
    call::{Call, Endpoint, call},
};

impl AppServices {
    /// Gives services the opportunity to make a user that somebody asks for. Whether there is one
    /// afterwards is for the caller to see.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn ask_for_user(&self, user: &UserId) -> millrace_store::Result<()> {
        let registry = self.registry();
        if registry.is_empty() || !self.rooms.env.is_local(user) {
            return Ok(());
        }
        if self.rooms.env.store.snapshot().get(&ACCOUNTS, user, ()).await?.is_some() {
            return Ok(());
        }
        for service in registry.all().iter().filter(|service| service.has_user(user)) {
            if self.ask(service, Endpoint::User(user.as_str())).await {
                break;
            }
        }
        Ok(())
    }

    /// Gives services the opportunity to make an alias that somebody asks for, as
    /// [`AppServices::ask_for_user`].
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn ask_for_alias(&self, alias: &RoomAliasId) -> millrace_store::Result<()> {
        let registry = self.registry();
        let env = &self.rooms.env;
        if registry.is_empty() || alias.server_name() != env.identity.name {
            return Ok(());
        }
        if env.store.snapshot().get(&ALIASES, alias, ()).await?.is_some() {
            return Ok(());
        }
        for service in registry.all().iter().filter(|service| service.has_alias(alias)) {
            if self.ask(service, Endpoint::Alias(alias.as_str())).await {
                break;
            }
        }
        Ok(())
    }

    /// Whether a service says that it has something.
    async fn ask(&self, service: &Arc<Service>, endpoint: Endpoint<'_>) -> bool {
        let question = Call::get(endpoint, &[], self.settings.query_timeout);
        match call(&self.client, service, &question).await {
            Ok(_) => true,
            // It has not, or is only to ask.
            Err(CallError::Status { .. } | CallError::NoUrl) => false,
            Err(error) => {
                tracing::warn!(id = service.id, %error, "an application service was asked in vain");
                false
            }
        }
    }
}
