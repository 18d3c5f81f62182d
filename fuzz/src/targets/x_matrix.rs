//! The header in which other servers sign their requests.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use ruma::api::federation::authentication::XMatrix;

/// Headers as servers send them.
pub fn samples() -> Vec<Vec<u8>> {
    [
        r#"X-Matrix origin="one.example",destination="two.example",key="ed25519:abc",sig="dGVzdA""#,
        r#"X-Matrix origin=one.example,key="ed25519:1",sig="dGVzdA""#,
        r#"x-matrix origin="[2001:db8::1]:8448", destination="1.2.3.4:1", key="ed25519:a_b", sig="dGVzdA==""#,
        r#"X-Matrix key="ed25519:\1", sig="dGVzdA",destination="two",origin="one""#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Whatever is accepted is written as a header that means the same.
pub fn run(input: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(input) else { return false };
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    let Ok(header) = XMatrix::extract_from_http_headers(&headers) else { return false };
    let written = header.to_string();
    let again = XMatrix::parse(&written).expect("what is written can be read");
    assert_eq!(again.to_string(), written);
    assert_eq!(
        (&again.origin, &again.destination, &again.key, again.sig.encode()),
        (&header.origin, &header.destination, &header.key, header.sig.encode()),
    );
    true
}
