//! What is planted: every secret that passes through a gateway, each with the places it is put. Adding one is a line.

use std::sync::Mutex;

use super::search::Plant;

/// All secrets of one run, random.
pub(crate) struct Plants {
    pub(crate) api_key: String,
    pub(crate) api_secret: String,
    pub(crate) second_secret: String,
    pub(crate) certificate: String,
    pub(crate) lost_secret: String,
    pub(crate) caller_key: String,
    pub(crate) reader_key: String,
    pub(crate) unknown_key: String,
    pub(crate) admin_key: String,
    pub(crate) wrong_admin_key: String,
    pub(crate) read_key: String,
    pub(crate) cookie: String,
    pub(crate) jwt: String,
    pub(crate) proxy_password: String,
    /// What follows `whsec_`.
    pub(crate) webhook_key: String,
    /// Read off what the vendor received.
    minted: Mutex<Vec<String>>,
}

impl Plants {
    pub(crate) fn new() -> Self {
        Self {
            api_key: random(32),
            // What has to be escaped somewhere.
            api_secret: format!("{}/+&=~{}", random(16), random(16)),
            second_secret: format!("{}<'%>{}", random(16), random(16)),
            certificate: random(32),
            lost_secret: random(32),
            caller_key: random(43),
            reader_key: random(43),
            unknown_key: random(43),
            admin_key: random(43),
            wrong_admin_key: random(43),
            read_key: random(43),
            cookie: random(32),
            jwt: format!("eyJhbGciOiJSUzI1NiJ9.{}.{}", random(60), random(80)),
            proxy_password: random(24),
            webhook_key: random(32),
            minted: Mutex::default(),
        }
    }

    /// A token that the vendor received. Its first part is the version and the App ID, which are no secrets.
    pub(crate) fn minted(&self, token: &str, app: &str) {
        let secret = token.strip_prefix("006").unwrap().strip_prefix(app).unwrap().to_owned();
        let mut minted = self.minted.lock().unwrap();
        if !minted.contains(&secret) {
            minted.push(secret);
        }
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<Plant> {
        let plant = |name: &str, secret: &str| Plant { name: name.to_owned(), secret: secret.into() };
        let jwt = self.jwt.split_once('.').unwrap().1;
        let mut list = vec![
            plant("api key", &self.api_key),
            plant("api secret", &self.api_secret),
            plant("rotated api secret", &self.second_secret),
            plant("app certificate", &self.certificate),
            plant("secret of an app that lost it", &self.lost_secret),
            plant("caller's key", &self.caller_key),
            plant("another caller's key", &self.reader_key),
            plant("key nobody knows", &self.unknown_key),
            plant("admin key", &self.admin_key),
            plant("wrong admin key", &self.wrong_admin_key),
            plant("read-only key", &self.read_key),
            plant("cookie", &self.cookie),
            plant("JWT, but for its head", jwt),
            plant("proxy password", &self.proxy_password),
            plant("webhook's key", &self.webhook_key),
        ];
        let minted = self.minted.lock().unwrap();
        assert!(!minted.is_empty(), "no minted token was seen");
        list.extend(minted.iter().map(|token| plant("minted token", token)));
        list
    }
}

/// Letters and digits.
pub(crate) fn random(length: usize) -> String {
    const ALL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length).map(|_| char::from(ALL[rand::random_range(0..ALL.len())])).collect()
}
