//! All services, and what no two of them may have in common.

use std::{collections::HashMap, sync::Arc};

use millrace_store::rows::account::TokenHash;
use ruma::{RoomAliasId, UserId};

use super::{
    Namespace, Service,
    overlap::{alias_form, overlap, user_form},
};

/// All services of the server. It never changes; another takes its place.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    services: Vec<Arc<Service>>,
    tokens: HashMap<TokenHash, usize>,
}

/// Why two services cannot be together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{new}: {problem} as in {old}; {advice}")]
pub struct Conflict {
    /// Where the one is registered that is refused.
    pub new: String,
    /// Where the one is registered that was there before.
    pub old: String,
    /// What they have in common.
    pub problem: String,
    /// What to do.
    pub advice: &'static str,
}

impl Registry {
    /// The same services and one more.
    ///
    /// # Errors
    /// Where it has something in common with another that each must have for itself.
    pub fn with(&self, service: Service) -> Result<Self, Conflict> {
        for old in &self.services {
            if let Some((problem, advice)) = common(old, &service) {
                let (new, old) = (service.source.to_string(), old.source.to_string());
                return Err(Conflict { new, old, problem, advice });
            }
        }
        let mut registry = self.clone();
        registry.tokens.insert(service.as_token, registry.services.len());
        registry.services.push(Arc::new(service));
        Ok(registry)
    }

    /// The same services without one.
    #[must_use]
    pub fn without(&self, id: &str) -> Self {
        let mut registry = Self::default();
        for service in self.services.iter().filter(|service| service.id != id) {
            registry.tokens.insert(service.as_token, registry.services.len());
            registry.services.push(Arc::clone(service));
        }
        registry
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// All services.
    #[must_use]
    pub fn all(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The service of an ID.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.id == id)
    }

    /// The service that has a token.
    #[must_use]
    pub fn by_token(&self, token: &str) -> Option<&Arc<Service>> {
        if self.services.is_empty() {
            return None;
        }
        self.tokens.get(&Service::hash(token)).map(|at| &self.services[*at])
    }

    /// Whether only some service may give this name.
    #[must_use]
    pub fn keeps_user(&self, user: &UserId) -> bool {
        self.services.iter().any(|service| service.keeps_user(user))
    }

    /// The service to which an alias belongs alone.
    #[must_use]
    pub fn keeper_of(&self, alias: &RoomAliasId) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.keeps_alias(alias))
    }

    /// The services that lead to a network.
    pub fn of_protocol(&self, protocol: &str) -> impl Iterator<Item = &Arc<Service>> {
        let leads = move |service: &&Arc<Service>| service.protocols.iter().any(|p| p == protocol);
        self.services.iter().filter(leads)
    }
}

/// What two services have in common that they must not, and what to do.
fn common(old: &Service, new: &Service) -> Option<(String, &'static str)> {
    if old.id == new.id {
        let advice = "give one of them another id, or remove one";
        return Some((format!("id: {:?} is the same", new.id), advice));
    }
    if old.as_token == new.as_token {
        let advice = "generate another token for one of them";
        return Some(("as_token: it is the same".to_owned(), advice));
    }
    if old.sender == new.sender {
        let advice = "give one of them another sender_localpart";
        return Some((format!("sender_localpart: {} is the same", new.sender), advice));
    }
    let server = new.sender.server_name().as_str();
    let users = (&*old.namespaces.users, &*new.namespaces.users);
    let aliases = (&*old.namespaces.aliases, &*new.namespaces.aliases);
    let found = overlapping(&user_form(server), users)
        .or_else(|| overlapping(&alias_form(server), aliases));
    found.map(|(old, new)| {
        let problem =
            format!("namespaces: exclusive {:?} overlaps with {:?}", new.text(), old.text());
        (problem, "narrow one of them, or make it not exclusive")
    })
}

/// Two exclusive namespaces that have an identifier in common.
fn overlapping<'a>(
    form: &str,
    (old, new): (&'a [Namespace], &'a [Namespace]),
) -> Option<(&'a Namespace, &'a Namespace)> {
    let exclusive = |all: &'a [Namespace]| all.iter().filter(|namespace| namespace.exclusive);
    let mut pairs = exclusive(old).flat_map(|old| exclusive(new).map(move |new| (old, new)));
    pairs.find(|(old, new)| overlap(form, old.text(), new.text()))
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;
    use crate::registration::{Source, parse};

    fn service(id: &str, token: &str, sender: &str, users: &str) -> Service {
        let text = format!(
            "id: {id}\nurl: null\nas_token: as-token-{token}\nhs_token: hs-token\n\
             sender_localpart: {sender}\nnamespaces:\n  users:\n    {users}\n"
        );
        let source = Source::File(format!("{id}.yaml").into());
        parse(&text, source, server_name!("test")).unwrap()
    }

    #[test]
    fn two_services_share_neither_id_nor_token_nor_sender_nor_an_exclusive_name() {
        let irc = "- {exclusive: true, regex: '@irc_.*'}";
        let registry = Registry::default().with(service("a", "a", "a", irc)).unwrap();
        let other = "- {exclusive: true, regex: '@xmpp_.*'}";
        let shared = "- {exclusive: false, regex: '@irc_.*'}";
        for (new, words) in [
            (service("a", "b", "b", other), "id: \"a\" is the same"),
            (service("b", "a", "b", other), "as_token"),
            (service("b", "b", "a", other), "sender_localpart"),
            (service("b", "b", "b", irc), "overlaps"),
        ] {
            let refused = registry.with(new).unwrap_err().to_string();
            assert!(refused.contains(words) && refused.contains("a.yaml"), "{refused}");
        }
        let registry = registry.with(service("b", "b", "b", other)).unwrap();
        let registry = registry.with(service("c", "c", "c", shared)).unwrap();
        assert_eq!(registry.by_token("as-token-b").unwrap().id, "b");
        assert_eq!(registry.by_token("hs-token").map(|found| &found.id), None);
        assert!(registry.keeps_user(user_id!("@irc_x:test")));
        let registry = registry.without("a");
        assert_eq!(registry.by_token("as-token-c").unwrap().id, "c");
        assert!(!registry.keeps_user(user_id!("@irc_x:test")));
    }
}
