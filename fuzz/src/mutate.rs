//! Changing an input a little: its bytes, or the tree of its JSON.

use serde_json::Value;

use crate::random::Random;

/// Texts at which parsers have stumbled.
const TOKENS: [&str; 40] = [
    "null",
    "true",
    "-0",
    "1e400",
    "1.0",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740992",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "\\u0000",
    "\\ud800",
    "\\u00e9",
    "\u{0}",
    "\u{7f}",
    "\u{e9}",
    "\u{1f600}",
    "\u{202e}",
    "@",
    "!",
    "$",
    "#",
    ":",
    ",",
    "=",
    "\"",
    "\\",
    "%",
    "_",
    "-",
    "[::1]",
    ":65536",
    "X-Matrix ",
    "sig=",
    "ed25519:",
    "\r\n",
    "\t",
    "m.room.create",
];

/// What else may stand where a value stands.
const VALUES: [&str; 20] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1.5",
    "1e9",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740992",
    "18446744073709551615",
    "\"\"",
    "\"@a:b\"",
    "\"!a:b\"",
    "\"$a:b\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[{}]",
    "{\"\":{\"\":[]}}",
];

/// Changes an input once. `others` are inputs to take parts of.
pub fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    if random.once_in(2)
        && let Ok(mut tree) = serde_json::from_slice::<Value>(input)
        && (tree.is_object() || tree.is_array())
    {
        mutate_tree(&mut tree, others, random);
        *input = tree.to_string().into_bytes();
        return;
    }
    let (from, to) = range(input, random);
    match random.below(9) {
        0 => drop(input.drain(from..to)),
        1 => input.extend_from_within(from..to),
        2 => splice(input, from, to, random.pick::<&str>(&TOKENS).as_bytes()),
        3 => splice(input, from, from, random.pick::<&str>(&TOKENS).as_bytes()),
        4 if !input.is_empty() => input[from.min(to - 1)] = random.next() as u8,
        5 if !input.is_empty() => input[from.min(to - 1)] ^= 1 << random.below(8),
        6 => {
            let other = random.pick(others);
            let (start, end) = range(other, random);
            splice(input, from, to, &other[start..end]);
        }
        7 if random.once_in(8) => {
            // So much of the same that what is quadratic shows, and what recurses falls.
            let piece = input[from..to.min(from + 16)].repeat(1 << random.below(14));
            splice(input, from, to, &piece);
        }
        8 if random.once_in(8) => {
            let depth = 1 << random.below(17);
            let (open, close) = *random.pick(&[("[", "]"), ("{\"a\":", "}"), ("[{\"\":", "}]")]);
            let nested = format!("{}0{}", open.repeat(depth), close.repeat(depth));
            splice(input, from, to, nested.as_bytes());
        }
        _ => input.truncate(from),
    }
}

/// A part of an input, mostly a short one.
fn range(input: &[u8], random: &mut Random) -> (usize, usize) {
    let from = random.below(input.len() + 1);
    let len = match random.below(4) {
        0 => random.below(input.len() + 1),
        _ => random.below(9),
    };
    (from, (from + len).max(from + 1).min(input.len()).max(from))
}

fn splice(input: &mut Vec<u8>, from: usize, to: usize, piece: &[u8]) {
    input.splice(from..to, piece.iter().copied());
}

/// Changes one value of a tree, or one field of an object.
fn mutate_tree(tree: &mut Value, others: &[Vec<u8>], random: &mut Random) {
    let mut value = tree;
    // A way down, that ends anywhere.
    loop {
        let count = match value {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        };
        if count == 0 || random.once_in(4) {
            break;
        }
        let at = random.below(count);
        value = match value {
            Value::Array(items) => &mut items[at],
            Value::Object(fields) => match fields.values_mut().nth(at) {
                Some(field) => field,
                None => return,
            },
            _ => return,
        };
    }
    match value {
        Value::Object(fields) if random.once_in(2) => {
            let key = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
            let old = fields.remove(&key).unwrap_or_default();
            match random.below(3) {
                0 => {}
                1 => drop(fields.insert(random.pick::<&str>(&TOKENS).to_string(), old)),
                _ => {
                    fields.insert(format!("{key}{}", random.pick::<&str>(&TOKENS)), old.clone());
                    fields.insert(key, old);
                }
            }
        }
        Value::Array(items) if !items.is_empty() && random.once_in(2) => {
            let item = random.pick(items).clone();
            let times = if random.once_in(16) { 4096 } else { 1 + random.below(30) };
            items.extend(std::iter::repeat_n(item, times));
        }
        Value::String(text) if random.once_in(2) => {
            let at = text.floor_char_boundary(random.below(text.len() + 1));
            let piece = random.pick::<&str>(&TOKENS);
            let times = if random.once_in(8) { 1 << random.below(13) } else { 1 };
            text.insert_str(at, &piece.repeat(times));
        }
        value => *value = other_value(others, random),
    }
}

fn other_value(others: &[Vec<u8>], random: &mut Random) -> Value {
    let text = random.pick::<&str>(&VALUES);
    if random.once_in(3)
        && let Ok(Value::Object(fields)) = serde_json::from_slice(random.pick::<Vec<u8>>(others))
        && let Some(field) = fields.values().nth(random.below(fields.len()))
    {
        return field.clone();
    }
    serde_json::from_str(text).unwrap_or_default()
}
