//! What a service is and may do: its registration (spec: Application Service API, Registration).

mod file;
mod load;
mod namespace;
mod overlap;
mod registry;
mod service;

pub use self::{
    file::{InvalidRegistration, parse},
    load::{LoadError, load_files},
    namespace::{Namespace, Namespaces},
    registry::{Conflict, Registry},
    service::{Service, Source},
};
