//! `rtm-gateway client-key`: a key for a caller, and what the configuration must know of it.
//!
//! Invariant: the key is printed once and kept nowhere; the configuration holds its SHA-256. A key of 256 random bits
//! cannot be guessed from its hash, so the hash needs no salt and no slowness.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::CliError;
use crate::kernel::names::ClientName;
use crate::kernel::secret::Secret;

/// Makes a caller's key: prints the key once, and the `[[clients]]` stanza with its SHA-256.
///
/// The first line is the key, for the caller. From the third line on it is the stanza, for the configuration.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway client-key billing")]
pub(super) struct ClientKeyArgs {
    /// The client's name.
    #[arg(value_parser = ClientName::parse)]
    name: ClientName,
}

/// Prints a new key and its stanza.
/// Fails when the system gives no random bytes, or `out` cannot be written.
pub(super) fn run(args: &ClientKeyArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let key = new_key()?;
    let hash: String = Sha256::digest(key.expose()).iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "{}\n", key.expose())?;
    writeln!(out, "# Above is the key of this client: give it to the caller now, it is not kept and not shown again.")?;
    writeln!(out, "[[clients]]\nname = \"{}\"\napi_key_sha256 = \"{hash}\"", args.name)?;
    writeln!(out, "# It may do nothing until it is allowed to. For example:")?;
    writeln!(out, "# allow = [{{ app = \"*\", actions = [\"events\", \"history\", \"count\", \"messages\"] }}]")?;
    out.flush()?;
    Ok(())
}

fn new_key() -> Result<Secret, CliError> {
    let mut bits = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bits).map_err(|why| CliError::Failed(format!("no random bytes: {why}")))?;
    Ok(Secret::new(format!("rtmk_{}", URL_SAFE_NO_PAD.encode(*bits))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let mut out = Vec::new();
        run(&ClientKeyArgs { name: ClientName::parse("billing.prod").unwrap() }, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let (key, stanza) = out.split_once("\n\n").unwrap();
        (key.to_owned(), stanza.to_owned())
    }

    #[test]
    fn the_stanza_holds_the_keys_hash_and_not_the_key() {
        let (key, stanza) = made();
        assert!(key.starts_with("rtmk_") && key.len() == 5 + 43, "{key}");
        assert!(!stanza.contains(&key));
        let stanza: toml::Table = stanza.parse().unwrap();
        let client = &stanza["clients"][0];
        let hash: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((client["name"].as_str(), client["api_key_sha256"].as_str()), (Some("billing.prod"), Some(&*hash)));
    }

    #[test]
    fn no_two_keys_are_equal() {
        assert_ne!(made().0, made().0);
    }
}
