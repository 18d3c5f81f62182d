//! What is fuzzed.

mod canonical;
mod edu;
mod pdu;
mod tokens;
mod x_matrix;

/// A parser of what others send.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Inputs that it accepts.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Parses an input; whether it was accepted. Panics where a property does not hold.
    pub run: fn(&[u8]) -> bool,
}

/// All targets.
pub const TARGETS: [Target; 5] = [
    Target { name: "pdu", samples: pdu::samples, run: pdu::run },
    Target { name: "edu", samples: edu::samples, run: edu::run },
    Target { name: "canonical", samples: canonical::samples, run: canonical::run },
    Target { name: "tokens", samples: tokens::samples, run: tokens::run },
    Target { name: "x_matrix", samples: x_matrix::samples, run: x_matrix::run },
];

/// An input as text; what is no text reaches no parser of texts.
fn as_text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
