//! Held against outputs of the vendor's own builder.

use proptest::prelude::*;

use super::*;

#[derive(serde::Deserialize)]
struct Vector {
    app_id: String,
    app_certificate: String,
    uid: String,
    salt: u32,
    ts: u32,
    privilege_expire_ts: u32,
    token: String,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../../tests/vectors/rtm_tokens.json")).unwrap()
}

#[test]
fn equal_inputs_give_the_vendors_own_bytes() {
    let vectors = vectors();
    assert!(vectors.len() >= 6);
    for v in vectors {
        let (app, certificate) = (AppId::parse(&v.app_id).unwrap(), Secret::new(v.app_certificate));
        let minted = mint(&app, &certificate, &v.uid, v.salt, v.ts, v.privilege_expire_ts);
        assert_eq!(minted.expose(), v.token);
        let token = parse(&v.token).unwrap();
        assert_eq!((token.app_id.as_str(), token.salt, token.ts), (v.app_id.as_str(), v.salt, v.ts));
        assert_eq!(token.privileges, [Privilege { id: LOGIN, expires: v.privilege_expire_ts }]);
        assert!(token.signed_by(&certificate, &v.uid));
        assert!(!token.signed_by(&certificate, "another"));
        assert!(!token.signed_by(&Secret::new("another".into()), &v.uid));
    }
}

#[test]
fn a_token_with_any_one_bit_changed_is_refused() {
    let v = vectors().remove(0);
    let certificate = Secret::new(v.app_certificate);
    let content = STANDARD.decode(&v.token[35..]).unwrap();
    for bit in 0..content.len() * 8 {
        let mut wounded = content.clone();
        wounded[bit / 8] ^= 1 << (bit % 8);
        let text = format!("{}{}", &v.token[..35], STANDARD.encode(wounded));
        assert!(!parse(&text).is_ok_and(|t| t.signed_by(&certificate, &v.uid)), "bit {bit}");
    }
}

#[test]
fn what_is_no_token_says_where_it_broke() {
    let good = &vectors()[0].token;
    for (text, why) in [
        ("", NotAToken::Version),
        ("007abc", NotAToken::Version),
        ("006", NotAToken::TooShort),
        ("006用户用户用户用户用户用户用户用户", NotAToken::TooShort),
        (&good[..good.len() - 1], NotAToken::Base64),
        (&good[..good.len() - 4], NotAToken::Length),
        (&format!("{good}AAAA"), NotAToken::Length),
        (&"006".repeat(2000), NotAToken::TooLong),
    ] {
        assert_eq!(parse(text), Err(why), "{text}");
    }
}

#[test]
fn a_token_does_not_print_its_signature() {
    let token = parse(&vectors()[0].token).unwrap();
    assert!(format!("{token:?}").contains("Signature(..)"));
}

properties! {
    #[test]
    fn what_is_minted_is_parsed_again(
        app in "[A-Za-z0-9]{32}", certificate in ".{1,100}", uid in ".{0,80}",
        salt: u32, ts: u32, expires: u32,
    ) {
        let (app, certificate) = (AppId::parse(&app).unwrap(), Secret::new(certificate));
        let token = parse(mint(&app, &certificate, &uid, salt, ts, expires).expose()).unwrap();
        prop_assert_eq!(&token.app_id, &app);
        prop_assert_eq!((token.salt, token.ts, token.privileges[0].expires), (salt, ts, expires));
        prop_assert!(token.fits(&uid) && token.signed_by(&certificate, &uid));
    }

    #[test]
    fn app_ids_of_any_length_come_back(app in "[A-Za-z0-9_-]{1,64}") {
        let app = AppId::parse(&app).unwrap();
        let certificate = Secret::new("c".into());
        let token = parse(mint(&app, &certificate, "u", 7, 8, 9).expose()).unwrap();
        prop_assert_eq!(&token.app_id, &app);
        prop_assert!(token.signed_by(&certificate, "u"));
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", content in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = parse(&text);
        let _ = parse(&format!("006{text}"));
        let _ = parse(&format!("006{:032}{}", 0, STANDARD.encode(content)));
    }
}
