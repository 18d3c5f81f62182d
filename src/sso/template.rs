//! Names made of what a provider says, as in `{{ preferred_username }}`.

use serde_json::{Map, Value};

/// The longest name.
const NAME_BYTES_MAX: usize = 255;

/// A template with the claims that it names in their places; nothing where one of them is missing.
pub(super) fn fill(template: &str, claims: &Map<String, Value>) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        filled.push_str(before);
        // Templates of Synapse say `user.name`.
        let name = name.trim();
        let (claim, part) = match name.strip_prefix("user.").unwrap_or(name).split_once('|') {
            Some((claim, part)) => (claim.trim(), Some(part.trim())),
            None => (name.strip_prefix("user.").unwrap_or(name), None),
        };
        let value = match claims.get(claim)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        filled.push_str(match part {
            Some("localpart") => value.split('@').next().unwrap_or_default(),
            Some(_) => return None,
            None => &value,
        });
        rest = after;
    }
    filled.push_str(rest);
    let filled = filled.trim().to_owned();
    (!filled.is_empty() && filled.len() <= NAME_BYTES_MAX).then_some(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_filled_with_claims_or_not_at_all() {
        let claims = json!({ "sub": 7, "name": "Ann Lee", "email": "ann@example.org", "x": {} });
        let fill = |template: &str| fill(template, claims.as_object().unwrap());
        assert_eq!(fill("{{ name }}").as_deref(), Some("Ann Lee"));
        assert_eq!(fill("u-{{sub}}").as_deref(), Some("u-7"));
        assert_eq!(fill("{{ user.email|localpart }}").as_deref(), Some("ann"));
        for nothing in ["{{ missing }}", "{{x}}", "{{ name", "", "{{ email|upper }}"] {
            assert_eq!(fill(nothing), None, "{nothing}");
        }
    }
}
