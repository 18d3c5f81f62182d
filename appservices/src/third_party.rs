//! The networks that services lead to: what clients ask of them is passed on (spec: Application
//! Service API, Third-party networks).

use futures::future::join_all;
use serde_json::{Map, Value};

use crate::{
    AppServices, Service,
    call::{Call, Endpoint, call},
};

/// What is looked for in networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Users.
    User,
    /// Locations: rooms, channels.
    Location,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Location => "location",
        }
    }
}

/// Where a network's directory is asked for: `third_party_instance_id`.
#[must_use]
pub fn instance_id(service: &str, network: &str) -> String {
    format!("{service}|{network}")
}

impl AppServices {
    /// What is known of a network, of all services that lead to it; `None` where none does.
    pub async fn protocol(&self, protocol: &str) -> Option<Value> {
        let registry = self.registry();
        let told = join_all(registry.of_protocol(protocol).map(|service| async move {
            let path = ["protocol", protocol];
            let told = self.told(service, &path, &[]).await?;
            Some((service.id.clone(), told))
        }));
        let mut whole: Option<Map<String, Value>> = None;
        for (id, told) in told.await.into_iter().flatten() {
            let Value::Object(mut told) = told else { continue };
            let instances = named(told.remove("instances"), &id);
            let whole = whole.get_or_insert_with(|| {
                told.insert("instances".to_owned(), Value::Array(Vec::new()));
                told
            });
            if let Some(Value::Array(all)) = whole.get_mut("instances") {
                all.extend(instances);
            }
        }
        whole.map(Value::Object)
    }

    /// What is known of all networks.
    pub async fn protocols(&self) -> Map<String, Value> {
        let registry = self.registry();
        let names = registry.all().iter().flat_map(|service| &service.protocols);
        let names: std::collections::BTreeSet<&String> = names.collect();
        let told = join_all(names.into_iter().map(|name| async move {
            let told = self.protocol(name).await?;
            Some((name.clone(), told))
        }));
        told.await.into_iter().flatten().collect()
    }

    /// Whether any service leads to a network.
    #[must_use]
    pub fn knows_protocol(&self, protocol: &str) -> bool {
        self.registry().of_protocol(protocol).next().is_some()
    }

    /// What is found in a network by fields of the network's own.
    pub async fn find_in(
        &self,
        kind: Kind,
        protocol: &str,
        fields: &[(String, String)],
    ) -> Vec<Value> {
        let registry = self.registry();
        let path = [kind.word(), protocol];
        let services: Vec<_> = registry.of_protocol(protocol).collect();
        self.found(services, &path, fields).await
    }

    /// What in any network a user or an alias of Matrix is: `query` is `userid` or `alias`.
    pub async fn find_of(&self, kind: Kind, query: (&str, &str)) -> Vec<Value> {
        let registry = self.registry();
        let services = registry.all().iter().filter(|service| !service.protocols.is_empty());
        let query = [(query.0.to_owned(), query.1.to_owned())];
        self.found(services.collect(), &[kind.word()], &query).await
    }

    async fn found(
        &self,
        services: Vec<&std::sync::Arc<Service>>,
        path: &[&str],
        query: &[(String, String)],
    ) -> Vec<Value> {
        let asked = services.into_iter().map(|service| self.told(service, path, query));
        let told = join_all(asked).await.into_iter().flatten();
        let lists = told.filter_map(|told| match told {
            Value::Array(found) => Some(found),
            _ => None,
        });
        lists.flatten().filter(Value::is_object).collect()
    }

    /// What a service answers; nothing where it does not, which leaves the others to answer.
    async fn told(
        &self,
        service: &Service,
        path: &[&str],
        query: &[(String, String)],
    ) -> Option<Value> {
        let question = Call::get(Endpoint::ThirdParty(path), query, self.settings.query_timeout);
        let answer = call(&self.client, service, &question).await;
        let read = answer.map_err(|error| error.to_string());
        let read = read.and_then(|body| {
            serde_json::from_slice(&body).map_err(|error| format!("its answer is no JSON: {error}"))
        });
        read.map_err(|error| {
            tracing::info!(
                id = service.id,
                error,
                "an application service told nothing of a network"
            );
        })
        .ok()
    }
}

/// The instances of a network, each with the ID by which its rooms are asked for.
fn named(instances: Option<Value>, service: &str) -> Vec<Value> {
    let Some(Value::Array(mut instances)) = instances else { return Vec::new() };
    instances.retain(Value::is_object);
    for instance in &mut instances {
        if let Some(network) = instance["network_id"].as_str() {
            instance["instance_id"] = instance_id(service, network).into();
        }
    }
    instances
}
