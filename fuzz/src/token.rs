//! RTM tokens: taken apart, and minted.
//!
//! Input: a token; or an app id, a certificate, a user and a number a line, and what is to be changed in the token.

use rtm_gateway::kernel::names::AppId;
use rtm_gateway::kernel::secret::Secret;
use rtm_gateway::upstream::credentials::token::{LOGIN, Privilege, mint, parse};

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = parse(text) {
        assert!(text.starts_with(&format!("006{}", token.app_id)));
        assert!(!token.signed_by(&Secret::new("certificate".into()), "uid"), "forged");
        let _ = (token.minted(), token.alive(0), token.fits(text));
        // A token of no privilege holds 64 bytes, and each privilege 6.
        assert!(text.len() > 64 + 6 * token.privileges.len(), "more privileges than the text can hold");
    }
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (app, certificate, uid, number, change) = (line(), line(), line(), line(), line());
    let (Ok(app), Ok(number)) = (AppId::parse(app), number.parse::<u64>()) else { return };
    let [salt, ts, expires] = [number as u32, (number >> 32) as u32, number.wrapping_mul(0x9e37_79b9) as u32];
    let secret = Secret::new(certificate.to_owned());
    let minted = mint(&app, &secret, uid, salt, ts, expires);
    let minted = minted.expose();
    assert_eq!(minted, mint(&app, &secret, uid, salt, ts, expires).expose());
    let token = parse(minted).expect("what is minted is a token");
    // Shorter App IDs than the vendor's are found by trying; the first that fits may be another.
    if token.app_id == app {
        assert_eq!((token.salt, token.ts), (salt, ts));
        assert_eq!(token.privileges, [Privilege { id: LOGIN, expires }]);
        assert!(token.fits(uid) && token.signed_by(&secret, uid));
        assert!(!token.signed_by(&Secret::new(format!("{certificate}x")), uid));
        assert!(!token.signed_by(&secret, &format!("{uid}x")));
        assert!(!format!("{token:?}").contains(&minted[minted.len() - 40..]));
    } else {
        assert_ne!(app.as_str().len(), 32, "the vendor's own length was not tried first");
    }
    let mut change = change.chars();
    if let (Some(at), Some(with)) = (change.next(), change.next())
        && with.is_ascii()
    {
        let mut wrong = minted.as_bytes().to_vec();
        let at = at as usize % wrong.len();
        wrong[at] = with as u8;
        let wrong = String::from_utf8(wrong).expect("ASCII");
        let passes = parse(&wrong).is_ok_and(|token| token.signed_by(&secret, uid));
        assert!(wrong == minted || !passes, "{wrong} passes for {minted}");
    }
}
