//! Who calls: each client, by what it showed itself and when last, and strangers.
//!
//! Invariant: of a key nothing is shown but how the SHA-256 begins that the configuration has of it; of strangers
//! nothing but where they called from and what kind of thing was wrong.

use serde_json::{Map, Value, json};

use crate::services::Parts;

/// `GET /admin/v1/clients`.
pub(super) fn list(parts: &Parts) -> Value {
    let (config, live) = (parts.config.load(), parts.gateway.live());
    let in_hand = parts.gateway.admission.by_client();
    let clients = config.clients.iter().map(|client| {
        let proofs = live.identity.proofs(client).into_iter().map(|way| {
            let mut shown = json!({
                "proof": way.proof, "uses": way.used.uses, "last_used": way.used.last.map(|at| at.to_string()),
            });
            if let Some(sha256) = way.sha256 {
                shown["sha256"] = sha256.into();
            }
            shown
        });
        let now = in_hand.get(&client.name).copied().unwrap_or_default();
        json!({
            "name": client.name.as_str(), "requests_in_hand": now.requests, "streams": now.streams,
            "proofs": proofs.collect::<Vec<_>>(),
        })
    });
    let strangers = &parts.gateway.strangers;
    let counts: Map<String, Value> = strangers.counts().map(|(fault, n)| (fault.to_string(), n.into())).collect();
    let places = strangers.places().into_iter().map(|place| {
        json!({
            "address": place.address, "requests": place.refused, "last_proof": place.fault.as_str(),
            "last_at": place.last.to_string(),
        })
    });
    json!({
        "since": parts.gateway.began.to_string(), "clients": clients.collect::<Vec<_>>(),
        "unauthenticated": { "by_proof": counts, "last": places.collect::<Vec<_>>() },
    })
}
