//! RTM tokens, version `006`: minted for the vendor, and taken apart for people and for the simulated vendor.
//!
//! The layout (*field*: the vendor's published builder; all integers little-endian, `str(x)` is a `u16` byte length and
//! the bytes):
//!
//! ```text
//! message   = u32 salt | u32 ts | u16 count | count x (u16 privilege | u32 expiry), privileges ascending
//! signature = HMAC-SHA256(key = app certificate, app_id | account | message)
//! content   = str(signature) | u32 crc32(account) | u32 crc32("") | str(message)
//! token     = "006" | app_id (32 characters at the vendor) | base64(content)
//! ```
//!
//! `ts` is the mint time plus 24 hours, which is how long the vendor honours a token whatever expiry its privilege
//! carries. The account (the vendor's builder calls it channel name, and leaves its own `uid` empty) is not in the
//! token, only its checksum: who wants to check a signature must know the account.
//!
//! Invariants: equal inputs give equal bytes, the vendor's own; [`parse`] takes any text without a panic.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::kernel::names::AppId;
use crate::kernel::secret::Secret;

/// How long the vendor honours a token after its minting (*field*).
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The one privilege of an RTM token: to log in (*field*).
pub const LOGIN: u16 = 1000;

const VERSION: &str = "006";
/// The length of the vendor's own App IDs.
const APP_ID: usize = 32;
/// No longer text is taken apart: many times the length of any real token.
const MAX_LENGTH: usize = 4096;

/// Makes a token for `uid`. `ts` (mint time + [`LIFE`]) and `privilege_expire` are seconds since 1970; `salt` should be
/// random.
#[must_use]
pub fn mint(app_id: &AppId, certificate: &Secret, uid: &str, salt: u32, ts: u32, privilege_expire: u32) -> Secret {
    let message = message(salt, ts, &[Privilege { id: LOGIN, expires: privilege_expire }]);
    let signature = signing(app_id.as_str(), certificate, uid, &message).finalize().into_bytes();
    let mut content = Vec::with_capacity(64);
    push_str(&mut content, &signature);
    content.extend(crc32fast::hash(uid.as_bytes()).to_le_bytes());
    content.extend(crc32fast::hash(b"").to_le_bytes());
    push_str(&mut content, &message);
    let content = Zeroizing::new(STANDARD.encode(content));
    Secret::new([VERSION, app_id.as_str(), &content].concat())
}

/// A token's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose app it is for.
    pub app_id: AppId,
    /// CRC-32 of the account.
    pub account_crc: u32,
    /// CRC-32 of the builder's `uid`, which is empty in an RTM token.
    pub uid_crc: u32,
    /// What makes two tokens of one second differ.
    pub salt: u32,
    /// When the vendor stops honouring it, in seconds since 1970.
    pub ts: u32,
    /// What its bearer may do, in the token's order.
    pub privileges: Vec<Privilege>,
    signature: Signature,
}

/// One thing a token's bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// [`LOGIN`], or one this version does not know.
    pub id: u16,
    /// Until when, in seconds since 1970.
    pub expires: u32,
}

/// The bytes that make a token worth something: not printed.
#[derive(Clone, PartialEq, Eq)]
struct Signature(Vec<u8>);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// Why a text is no token. Says where it broke, never what stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    #[error("it does not begin with 006, the version")]
    Version,
    #[error("it is longer than any token ({MAX_LENGTH} characters)")]
    TooLong,
    #[error("it is too short to hold an App ID and a signature")]
    TooShort,
    #[error("its App ID holds other characters than A-Z a-z 0-9 _ -")]
    AppId,
    #[error("what follows its App ID is not base64")]
    Base64,
    #[error("its signature is not 32 bytes long")]
    Signature,
    #[error("it ends early or goes on too long")]
    Length,
}

/// Takes a token apart. Whether it is good is another question: see [`Token::signed_by`].
///
/// # Errors
/// When the text is not a token of version 006.
pub fn parse(text: &str) -> Result<Token, NotAToken> {
    if text.len() > MAX_LENGTH {
        return Err(NotAToken::TooLong);
    }
    let rest = text.strip_prefix(VERSION).ok_or(NotAToken::Version)?;
    // Nothing in the token says how long its App ID is. The vendor's are 32 characters; others are found by trying.
    let usual = split(rest, APP_ID);
    usual.or_else(|why| (1..=64).filter(|n| *n != APP_ID).find_map(|n| split(rest, n).ok()).ok_or(why))
}

fn split(rest: &str, at: usize) -> Result<Token, NotAToken> {
    let (app_id, content) = rest.split_at_checked(at).ok_or(NotAToken::TooShort)?;
    let app_id = AppId::parse(app_id).map_err(|_| NotAToken::AppId)?;
    let content = STANDARD.decode(content).map_err(|_| NotAToken::Base64)?;
    let mut content = Fields(&content);
    let signature = content.str()?;
    if signature.len() != 32 {
        return Err(NotAToken::Signature);
    }
    let account_crc = content.u32()?;
    let uid_crc = content.u32()?;
    let mut message = Fields(content.str()?);
    let salt = message.u32()?;
    let ts = message.u32()?;
    let count = message.u16()?;
    let privileges = (0..count)
        .map(|_| Ok(Privilege { id: message.u16()?, expires: message.u32()? }))
        .collect::<Result<Vec<_>, NotAToken>>()?;
    if !content.0.is_empty() || !message.0.is_empty() {
        return Err(NotAToken::Length);
    }
    let signature = Signature(signature.to_vec());
    Ok(Token { app_id, account_crc, uid_crc, salt, ts, privileges, signature })
}

impl Token {
    /// Whether it can have been made for this account (a checksum: no proof).
    #[must_use]
    pub fn fits(&self, uid: &str) -> bool {
        self.account_crc == crc32fast::hash(uid.as_bytes())
    }

    /// Whether this certificate signed it for this account. Compared without timing leaks.
    #[must_use]
    pub fn signed_by(&self, certificate: &Secret, uid: &str) -> bool {
        let message = message(self.salt, self.ts, &self.privileges);
        let signing = signing(self.app_id.as_str(), certificate, uid, &message);
        // The second checksum is outside the signature: the vendor's builder leaves it that of the empty text.
        self.fits(uid) && self.uid_crc == crc32fast::hash(b"") && signing.verify_slice(&self.signature.0).is_ok()
    }

    /// When it was minted, in seconds since 1970, if its maker kept to the rule that `ts` is [`LIFE`] later.
    #[must_use]
    pub fn minted(&self) -> Option<u32> {
        u32::try_from(LIFE.as_secs()).ok().and_then(|life| self.ts.checked_sub(life))
    }

    /// Whether the vendor still honours it at `now`, in seconds since 1970.
    #[must_use]
    pub fn alive(&self, now: u64) -> bool {
        now < u64::from(self.ts)
    }
}

fn message(salt: u32, ts: u32, privileges: &[Privilege]) -> Vec<u8> {
    let mut message = Vec::with_capacity(10 + 6 * privileges.len());
    message.extend(salt.to_le_bytes());
    message.extend(ts.to_le_bytes());
    message.extend(u16::try_from(privileges.len()).unwrap_or(u16::MAX).to_le_bytes());
    for privilege in privileges {
        message.extend(privilege.id.to_le_bytes());
        message.extend(privilege.expires.to_le_bytes());
    }
    message
}

fn signing(app_id: &str, certificate: &Secret, account: &str, message: &[u8]) -> Hmac<Sha256> {
    let key = certificate.expose().as_bytes();
    let mut signing = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length (RFC 2104)");
    signing.update(app_id.as_bytes());
    signing.update(account.as_bytes());
    signing.update(message);
    signing
}

/// All that is written is a signature of 32 bytes or a message of 16, so the length always fits.
fn push_str(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend(bytes);
}

/// Bytes, read from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], NotAToken> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(NotAToken::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, NotAToken> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, NotAToken> {
        self.take().map(u32::from_le_bytes)
    }

    fn str(&mut self) -> Result<&'a [u8], NotAToken> {
        let length = usize::from(self.u16()?);
        let (head, rest) = self.0.split_at_checked(length).ok_or(NotAToken::Length)?;
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests;
