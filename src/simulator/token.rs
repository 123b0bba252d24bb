//! Verification of RTM tokens, version 006, from the vendor's published builder (*field*).
//!
//! ```text
//! token   = "006" | app_id | base64(content)
//! content = str(signature) | u32 crc32(account) | u32 crc32("") | str(message)
//! message = u32 salt | u32 ts | u16 count | count x (u16 privilege | u32 expiry), privileges ascending
//! ```
//!
//! Little-endian; `str(x)` is a `u16` length and the bytes. The signature is HMAC-SHA256 with the app's certificate
//! over `app_id | account | message`. `ts` is the time of minting and 24 hours; the privilege's own expiry changes
//! nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Logging in to RTM: the privilege that must be there.
const RTM_LOGIN: u16 = 1000;
/// A token lives so long, in seconds.
const LIFE: u64 = 24 * 3600;
/// How far the minter's clock may be ahead, in seconds.
const SKEW: u64 = 300;

/// Why a token does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token is not of version 006")]
    Version,
    #[error("the token is of another app")]
    App,
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is of another uid")]
    Uid,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is over")]
    Over,
    #[error("the token claims more than 24 hours")]
    TooLong,
    #[error("the token's privileges are not in order or lack RTM login")]
    Privilege,
}

/// Checks a token against all that is known.
pub(super) fn verify(token: &str, app: &str, certificate: &str, uid: &str, now: u64) -> Result<(), TokenError> {
    let rest = token.strip_prefix("006").ok_or(TokenError::Version)?;
    let encoded = rest.strip_prefix(app).ok_or(TokenError::App)?;
    let content = STANDARD.decode(encoded).map_err(|_| TokenError::Malformed)?;
    let mut content = Reader(&content);
    let signature = content.string()?;
    let channel_crc = content.u32()?;
    let uid_crc = content.u32()?;
    let message = content.string()?;
    content.end()?;
    // Of an RTM token the account stands in the channel's place and the uid is empty (the vendor's token builder).
    if channel_crc != crc32fast::hash(uid.as_bytes()) || uid_crc != crc32fast::hash(b"") {
        return Err(TokenError::Uid);
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(certificate.as_bytes()).map_err(|_| TokenError::Signature)?;
    mac.update(app.as_bytes());
    mac.update(uid.as_bytes());
    mac.update(message);
    mac.verify_slice(signature).map_err(|_| TokenError::Signature)?;

    let mut message = Reader(message);
    let _salt = message.u32()?;
    let over_at = u64::from(message.u32()?);
    let mut privileges = Vec::new();
    for _ in 0..message.u16()? {
        privileges.push(message.u16()?);
        let _expiry = message.u32()?;
    }
    message.end()?;
    if !privileges.is_sorted_by(|a, b| a < b) || !privileges.contains(&RTM_LOGIN) {
        return Err(TokenError::Privilege);
    }
    if over_at <= now {
        return Err(TokenError::Over);
    }
    // The vendor honours a token for 24 hours from minting, whatever it claims.
    if over_at > now + LIFE + SKEW {
        return Err(TokenError::TooLong);
    }
    Ok(())
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, count: usize) -> Result<&'b [u8], TokenError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(TokenError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, TokenError> {
        let bytes = self.bytes(2)?.try_into().map_err(|_| TokenError::Malformed)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, TokenError> {
        let bytes = self.bytes(4)?.try_into().map_err(|_| TokenError::Malformed)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn string(&mut self) -> Result<&'b [u8], TokenError> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    fn end(&self) -> Result<(), TokenError> {
        if self.0.is_empty() { Ok(()) } else { Err(TokenError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by the vendor's own builder with these inputs.
    const APP: &str = "970CA35de60c44645bbae8a215061b33";
    const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";
    const TOKEN: &str = "006970CA35de60c44645bbae8a215061b33IAAsR0qgiCxv0vrpRcpkz5BrbfEWCBZ6kvR6t7qG/wJIQob86ogAAAAAEAABAAAAR/QQAAEA6AOvKDdW";
    const TS: u64 = 1_111_111;

    #[test]
    fn the_vendors_own_token_opens_for_its_day_and_no_longer() {
        let at = |now| verify(TOKEN, APP, CERTIFICATE, "test_user", now);
        assert_eq!(at(TS - LIFE), Ok(()));
        assert_eq!(at(TS - 1), Ok(()));
        assert_eq!(at(TS), Err(TokenError::Over));
        assert_eq!(at(TS - LIFE - SKEW - 1), Err(TokenError::TooLong));
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        let now = TS - 10;
        let check = |token: &str, app: &str, certificate: &str, uid: &str| verify(token, app, certificate, uid, now);
        assert_eq!(check(TOKEN, APP, CERTIFICATE, "test_user2"), Err(TokenError::Uid));
        assert_eq!(check(TOKEN, APP, &CERTIFICATE.to_lowercase(), "test_user"), Err(TokenError::Signature));
        assert_eq!(check(TOKEN, &APP.to_lowercase(), CERTIFICATE, "test_user"), Err(TokenError::App));
        assert_eq!(check(&TOKEN.replacen('6', "7", 1), APP, CERTIFICATE, "test_user"), Err(TokenError::Version));
        for at in 35..TOKEN.len() {
            let mut bytes = TOKEN.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'B' { b'C' } else { b'B' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(check(&changed, APP, CERTIFICATE, "test_user").is_err(), "byte {at}");
        }
    }
}
