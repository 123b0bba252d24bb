//! The OpenAPI document: all that callers and operators may ask, served at `/openapi.json` on both ports, to anybody.
//!
//! It is written in parts, one for each tag (the operators' for each kind of thing, too): paths, and the components
//! that only they use. `shared.json` has the components of several, `about.json` what stands before the paths.
//!
//! Invariants: the document lists exactly the operations that the tables of
//! [`operations`](crate::request::route::operations) list, of both ports; each port's code says for each request it
//! serves which operation it is, so a route cannot be added without an entry (`tests/it/openapi.rs` holds the two
//! equal). It holds nothing of the configuration.

use std::fmt;
use std::sync::LazyLock;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The document (OpenAPI 3.1, JSON).
pub static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| assemble(ABOUT, &PARTS).expect("the parts are in the program, and a test reads them"));

/// Version, title, servers, security and tags.
const ABOUT: &str = include_str!("openapi/about.json");

const PARTS: [&str; 10] = [
    include_str!("openapi/events.json"),
    include_str!("openapi/history.json"),
    include_str!("openapi/messages.json"),
    include_str!("openapi/document.json"),
    include_str!("openapi/admin.json"),
    include_str!("openapi/admin_subscriptions.json"),
    include_str!("openapi/admin_webhooks.json"),
    include_str!("openapi/admin_quarantine.json"),
    include_str!("openapi/admin_losses.json"),
    include_str!("openapi/shared.json"),
];

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Part<'a> {
    #[serde(borrow, default)]
    paths: Members<'a>,
    #[serde(borrow, default)]
    components: Components<'a>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Components<'a> {
    #[serde(borrow, default)]
    security_schemes: Members<'a>,
    #[serde(borrow, default)]
    parameters: Members<'a>,
    #[serde(borrow, default)]
    headers: Members<'a>,
    #[serde(borrow, default)]
    responses: Members<'a>,
    #[serde(borrow, default)]
    schemas: Members<'a>,
}

/// The members of an object as they are written, name and value. Readers of the document see them in this order, and a
/// map would sort them.
#[derive(Default)]
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

fn assemble(about: &str, parts: &[&str]) -> Result<String, serde_json::Error> {
    let parts: Vec<Part<'_>> = parts.iter().map(|part| serde_json::from_str(part)).collect::<Result<_, _>>()?;
    let components = |of: for<'p> fn(&'p Components<'p>) -> &'p Members<'p>| {
        object(parts.iter().map(|part| of(&part.components)), "    ")
    };
    let about = about.trim_end().trim_end_matches('}').trim_end();
    Ok(format!(
        r#"{about},
  "paths": {},
  "components": {{
    "securitySchemes": {},
    "parameters": {},
    "headers": {},
    "responses": {},
    "schemas": {}
  }}
}}
"#,
        object(parts.iter().map(|part| &part.paths), "  "),
        components(|all| &all.security_schemes),
        components(|all| &all.parameters),
        components(|all| &all.headers),
        components(|all| &all.responses),
        components(|all| &all.schemas),
    ))
}

/// One object of all these members.
fn object<'a>(parts: impl Iterator<Item = &'a Members<'a>>, indent: &str) -> String {
    let member = |(name, value): &(&RawValue, &RawValue)| format!("{indent}  {name}: {value}");
    let members: Vec<_> = parts.flat_map(|part| &part.0).map(member).collect();
    format!("{{\n{}\n{indent}}}", members.join(",\n"))
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_path_and_component_is_in_one_part_and_in_the_document() {
        let document: Value = serde_json::from_str(&DOCUMENT).unwrap();
        let (mut in_parts, mut in_document) = (0, document["paths"].as_object().unwrap().len());
        for part in PARTS {
            let part: Value = serde_json::from_str(part).unwrap();
            let components = part["components"].as_object();
            let kinds = components.into_iter().flat_map(|kinds| kinds.values());
            in_parts += part["paths"].as_object().map_or(0, |paths| paths.len());
            in_parts += kinds.map(|all| all.as_object().unwrap().len()).sum::<usize>();
        }
        for kind in document["components"].as_object().unwrap().values() {
            in_document += kind.as_object().unwrap().len();
        }
        assert_eq!(in_parts, in_document);
    }
}
