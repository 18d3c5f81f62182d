//! Names that nobody registers but an application service.

use ruma::UserId;

/// Knows the namespaces of application services.
pub trait ReservedNames: Send + Sync + 'static {
    /// Whether only an application service gives this name.
    fn is_reserved(&self, user: &UserId) -> bool;
}

/// There are no application services.
#[derive(Debug, Clone, Copy)]
pub struct NoneReserved;

impl ReservedNames for NoneReserved {
    fn is_reserved(&self, _: &UserId) -> bool {
        false
    }
}
