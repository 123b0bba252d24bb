//! Every class of rule: what is written, where the fault is said to be, a word of the mend.

mod linear;
mod shipped;

use super::*;

/// Stands for a secret that was pasted where it does not belong.
const PLANTED: &str = "s3cr3t-hunter2";

/// A folder with what a configuration may refer to.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("secret", "a-secret\n"), ("colon", "a:b"), ("empty", "\n"), ("no.pem", "no PEM at all")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("jwks"), "{\"keys\":[]}").unwrap();
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
            write_key(&dir.path().join(format!("{name}.key")), &made.signing_key);
        }
        Self(dir)
    }

    fn file(&self, name: &str) -> String {
        format!("{{ file = \"{}\" }}", self.0.path().join(name).display())
    }

    /// A good configuration with `top` above its app, `app` inside it and `client` inside its client.
    fn config(&self, top: &str, app: &str, client: &str) -> String {
        let credential =
            format!("credential = {{ kind = \"basic\", api_key = {0}, api_secret = {0} }}", self.file("secret"));
        let hash = "a".repeat(64);
        format!(
            "{top}\n[[apps]]\nid = \"app\"\n{credential}\n{app}\n[[clients]]\nname = \"billing\"\napi_key_sha256 = \"{hash}\"\n\
             {client}\n"
        )
    }

    fn faults(&self, text: &str) -> Vec<Finding> {
        let text = text.replace("$SECRET", &self.file("secret")).replace("$DIR", self.0.path().to_str().unwrap());
        let faults = from_text(&text, Path::new("gateway.toml")).map(|_| ()).unwrap_err();
        assert!(!faults.to_string().contains(PLANTED), "a value is repeated: {faults}");
        faults.faults
    }
}

/// What was written must be refused at this path and line, with this word in the message.
#[track_caller]
fn refused(place: &Place, text: &str, path: &str, line: usize, word: &str) {
    let faults = place.faults(text);
    let fits = |f: &Finding| f.path == path && f.line == Some(line) && format!("{}. {}", f.what, f.mend).contains(word);
    assert!(faults.iter().any(fits), "wanted {path} at {line} with {word:?} for\n{text}\ngot {faults:#?}");
    assert_eq!(faults.len(), 1, "wanted one fault for\n{text}\ngot {faults:#?}");
}

#[test]
fn the_smallest_configuration_loads() {
    let place = Place::new();
    let loaded =
        from_text(&place.config("", "", "allow = [{ app = \"app\", actions = [\"events\"] }]"), Path::new("g"));
    let loaded = loaded.unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.apps[0].regions[0].name.as_str(), "default");
    assert_eq!(loaded.config.apps[0].regions[0].base_url, "https://api.agrtc.cn/");
    assert_eq!(loaded.config.server, super::super::Server::default());
}

#[test]
fn each_fault_of_a_webhook_names_its_key_its_line_and_its_mend() {
    let place = Place::new();
    for (name, text) in [("hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), ("short", "whsec_AAAA")] {
        std::fs::write(place.0.path().join(name), text).unwrap();
    }
    let (secret, short) = (place.file("hook"), place.file("short"));
    let good = format!("name = \"crm\"\nurl = \"https://crm\"\nsecrets = [{secret}]");
    let whole = place.config("", &format!("[[apps.webhooks]]\n{good}"), "");
    let webhook = from_text(&whole, Path::new("g")).unwrap().config.apps[0].webhooks[0].clone();
    assert_eq!((webhook.streams.len(), webhook.max_in_flight, webhook.max_attempts), (2, 1, 10));
    for (lines, key, line, word) in [
        ("name = \"crm\"\nurl = \"https://crm\"", "secrets", 5, "always signed"),
        ("name = \"crm\"\nurl = \"https://crm\"\nsecrets = []", "secrets", 8, "1 to 8"),
        ("name = \"crm\"\nurl = \"https://crm\"\nsecrets = [$SHORT]", "secrets[0]", 8, "24 to 64"),
        ("name = \"crm\"\nurl = \"https://crm\"\nsecrets = [$SECRET]", "secrets[0]", 8, "whsec_"),
        ("name = \"a/b\"\nurl = \"https://crm\"\nsecrets = [$HOOK]", "name", 6, "1 to 64"),
        ("name = \"crm\"\nurl = \"ftp://crm\"\nsecrets = [$HOOK]", "url", 7, "https://"),
        ("name = \"crm\"\nurl = \"https://u:p@crm\"\nsecrets = [$HOOK]", "url", 7, "without user"),
        ("name = \"crm\"\nurl = \"http://127.0.0.1:1\"\nsecrets = [$HOOK]", "url", 7, "allow_private_targets"),
        ("name = \"crm\"\nurl = \"https://169.254.169.254\"\nsecrets = [$HOOK]", "url", 7, "link-local"),
        ("$GOOD\nstreams = [\"events\"]", "streams[0]", 9, "one of"),
        ("$GOOD\nformat = \"json\"", "format", 9, "structured"),
        ("$GOOD\nmax_in_flight = 0", "max_in_flight", 9, "1 to"),
        ("$GOOD\nmax_attempts = 0", "max_attempts", 9, "1 to"),
        ("$GOOD\nretry = { initial = \"2h\" }", "retry.initial", 9, "grow"),
        ("$GOOD\nretrys = 5", "retrys", 9, "`retry`"),
        ("$GOOD\nfilter = { kind = \"Login\" }", "filter.\"…\"", 9, "Known here"),
        ("$GOOD\nca_file = \"/no/such.pem\"", "ca_file", 9, "cannot be read"),
    ] {
        let lines = lines.replace("$GOOD", &good).replace("$HOOK", &secret).replace("$SHORT", &short);
        let text = place.config("", &format!("[[apps.webhooks]]\n{lines}"), "");
        refused(&place, &text, &format!("apps[0].webhooks[0].{key}"), line, word);
    }
    let two = place.config("", &format!("[[apps.webhooks]]\n{good}\n[[apps.webhooks]]\n{good}"), "");
    refused(&place, &two, "apps[0].webhooks[1].name", 10, "another webhook");
    let unread = format!(
        "events = {{ streams = [\"user_events\"] }}\n[[apps.webhooks]]\n{good}\nstreams = [\"channel_events\"]"
    );
    refused(&place, &place.config("", &unread, ""), "apps[0].webhooks[0].streams[0]", 10, "not read");
}

#[test]
fn each_fault_at_the_top_names_its_key_its_line_and_its_mend() {
    let place = Place::new();
    let public = "api_key_sha256 = \"bb\"";
    for (top, path, line, word) in [
        ("colour = 1", "\"…\"", 1, "Known here: "),
        ("s3cr3t-hunter2 = 1", "\"…\"", 1, "Known here: "),
        ("[sever]\nlisten = []", "sever", 1, "`server`"),
        ("server = 7", "server", 1, "must be a table"),
        ("[server]\nlistne = []", "server.listne", 2, "`listen`"),
        ("[server]\nlisten = []", "server.listen", 2, "at least one"),
        ("[server]\nlisten = \"127.0.0.1:1\"", "server.listen", 2, "array"),
        ("[server]\nlisten = [\n\"localhost:80\"]", "server.listen[0]", 3, "as \"127.0.0.1:8080\""),
        ("[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "server.listen[1]", 2, "already"),
        ("[server]\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:1\"]", "server.listen[1]", 2, "clashes"),
        ("[server]\nlisten = [\"unix:\"]", "server.listen[0]", 2, "path"),
        ("[server]\nmax_connections = 0", "server.max_connections", 2, "1 to"),
        ("[server]\nmax_connections = \"9\"", "server.max_connections", 2, "whole number"),
        ("[server]\nrequest_body_limit = 1048576", "server.request_body_limit", 2, "does not say of what"),
        ("[server]\nrequest_body_limit = \"1048576\"", "server.request_body_limit", 2, "as \"1MiB\""),
        ("[server]\nrequest_body_limit = \"2GiB\"", "server.request_body_limit", 2, "at most 1GiB"),
        ("[server]\nrequest_body_limit = \"0B\"", "server.request_body_limit", 2, "more than nothing"),
        ("[server]\nheader_read_timeout = 10", "server.header_read_timeout", 2, "with a unit, as \"2s\""),
        ("[server]\nheader_read_timeout = \"10\"", "server.header_read_timeout", 2, "with a unit"),
        ("[server]\nshutdown_grace = \"0s\"", "server.shutdown_grace", 2, "1ms to"),
        ("[server]\nshutdown_grace = \"99999999d\"", "server.shutdown_grace", 2, "1ms to"),
        ("[server]\nanonymous_client = \"nobody\"", "server.anonymous_client", 2, "not configured"),
        (
            "[server]\nlisten = [\"0.0.0.0:1\"]\nanonymous_client = \"billing\"",
            "server.anonymous_client",
            3,
            "loopback or a Unix socket",
        ),
        ("[server]\nunix_mode = \"0066\"", "server.unix_mode", 2, "owner's"),
        ("[server]\nunix_mode = 660", "server.unix_mode", 2, "must be a text"),
        ("[server]\nunix_owner = \"root\"", "server.unix_owner", 2, "numbers"),
        ("[server]\nunix_owner = \":\"", "server.unix_owner", 2, "numbers"),
        ("[server.tls]\ncert = \"$DIR/a.pem\"", "server.tls.key", 1, "missing"),
        ("[server.tls]\nkey = \"$DIR/a.key\"\ncert = \"$DIR/no.pem\"", "server.tls.cert", 3, "no certificate"),
        ("[server.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/a.pem\"", "server.tls.key", 3, "no private key"),
        ("[server.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/b.key\"", "server.tls.cert", 2, "one certificate"),
        (
            "[server.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/a.key\"\nclient_auth = \"required\"",
            "server.tls.client_auth",
            4,
            "client_ca",
        ),
        (
            "[server.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/a.key\"\nclient_ca = \"$DIR/a.pem\"\nclient_crl = \"$DIR/a.pem\"",
            "server.tls.client_crl",
            5,
            "no revocation list",
        ),
        ("[admin]\nlisten = \"0.0.0.0:9090\"", "admin.api_key_sha256", 1, "is needed"),
        ("[admin]\nlisten = \"127.0.0.1:8080\"", "admin.listen", 2, "clashes"),
        ("[admin.tls]\ncert = \"$DIR/a.pem\"", "admin.tls.key", 1, "missing"),
        ("[admin.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/b.key\"", "admin.tls.cert", 2, "one certificate"),
        (&format!("[admin]\nread_key_sha256 = \"{}\"", "b".repeat(64)), "admin.read_key_sha256", 2, "needs admin.api"),
        (
            &format!("[admin]\nread_key_sha256 = \"{0}\"\napi_key_sha256 = \"{0}\"", "b".repeat(64)),
            "admin.read_key_sha256",
            2,
            "is that of admin.api_key_sha256",
        ),
        (&format!("[admin]\nlisten = \"0.0.0.0:9090\"\n{public}"), "admin.api_key_sha256", 3, "64 hex digits"),
        ("[log]\nlevel = \"inof\"", "log.level", 2, "one of off, error"),
        ("[log]\nlevel = \"info,hyper=loud\"", "log.level", 2, "module=level"),
        ("[log]\nlevel = \"-é=\"", "log.level", 2, "module=level"),
        ("[log]\nlevel = \"info,c2VjcmV0Cg==\"", "log.level", 2, "module=level"),
        ("[log]\nlevel = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=\"", "log.level", 2, "module=level"),
        ("[log]\nformat = \"xml\"", "log.format", 2, "\"json\", \"text\""),
        ("[log]\naccess = \"yes\"", "log.access", 2, "true or false"),
        ("[store]\nkind = \"redis\"", "store.kind", 2, "not available in this version"),
        ("[store]\nkind = \"embeded\"", "store.kind", 2, "The nearest is \"embedded\""),
        ("[store]\nurl = \"redis://s3cr3t-hunter2@h\"", "store.url", 2, "not available in this version"),
        ("[store]\npath = \"\"", "store.path", 2, "must be a path"),
        ("[store]\npath = \"a\\nb\"", "store.path", 2, "must be a path"),
        ("[store]\npath = \"$DIR/secret\"", "store.path", 2, "not a folder"),
        ("[upstream]\nvendor = \"agoar\"", "upstream.vendor", 2, "\"agora\""),
        ("[upstream]\nproxy = \"http://s3cr3t-hunter2@p\"", "upstream.proxy", 2, "proxy_user"),
        ("[upstream]\nproxy = \"https://p\"", "upstream.proxy", 2, "must be http://"),
        ("[upstream]\nproxy = \"http://p\"\nproxy_user = \"u\"", "upstream.proxy_user", 3, "both"),
        ("[upstream]\nno_proxy = [\"*\"]", "upstream.no_proxy", 2, "without proxy"),
        ("[upstream]\nfirst_byte_timeout = \"11s\"", "upstream.first_byte_timeout", 2, "request_timeout"),
        ("[upstream.retry]\npercent = 101", "upstream.retry.percent", 2, "0 to 100"),
        ("[upstream.breaker]\nopen_for = 5", "upstream.breaker.open_for", 2, "with a unit"),
        ("[upstream]\nca_file = \"$DIR/none.pem\"", "upstream.ca_file", 2, "cannot be read"),
        ("[upstream]\nca_file = \"$DIR/no.pem\"", "upstream.ca_file", 2, "no certificate"),
    ] {
        refused(&place, &place.config(top, "", ""), path, line, word);
    }
}

#[test]
fn each_fault_of_an_issuer_names_its_key_its_line_and_its_mend() {
    let place = Place::new();
    let jwt = "[identity.jwt]\nissuer = \"i\"\naudience = \"a\"\n";
    for (rest, path, line, word) in [
        ("", "identity.jwt.jwks_url", 1, "missing"),
        ("jwks_file = \"$DIR/jwks\"\njwks_url = \"https://h/\"", "identity.jwt.jwks_file", 4, "Keep one"),
        ("jwks_file = \"$DIR/no.pem\"", "identity.jwt.jwks_file", 4, "no JWK set"),
        ("jwks_file = \"$DIR/none\"", "identity.jwt.jwks_file", 4, "cannot be read"),
        ("jwks_file = \"$DIR/jwks\"\njwks_refresh = \"1s\"", "identity.jwt.jwks_refresh", 5, "belongs to jwks_url"),
        ("jwks_url = \"http://h/\"", "identity.jwt.jwks_url", 4, "https://"),
        ("jwks_url = \"https://u:s3cr3t-hunter2@h/\"", "identity.jwt.jwks_url", 4, "https://"),
        ("jwks_url = \"https://169.254.169.254/\"", "identity.jwt.jwks_url", 4, "link-local"),
        ("jwks_url = \"https://[::1]/\"", "identity.jwt.jwks_url", 4, "this machine"),
        ("jwks_url = \"https://2130706433/\"", "identity.jwt.jwks_url", 4, "standard form"),
        ("jwks_file = \"$DIR/jwks\"\nalgorithms = []", "identity.jwt.algorithms", 5, "at least one"),
        ("jwks_file = \"$DIR/jwks\"\nalgorithms = [\"none\"]", "identity.jwt.algorithms[0]", 5, "RS256"),
        ("jwks_file = \"$DIR/jwks\"\nalgorithms = [\"HS256\"]", "identity.jwt.algorithms[0]", 5, "RS256"),
    ] {
        refused(&place, &place.config(&format!("{jwt}{rest}"), "", ""), path, line, word);
    }
    let text = "[identity.jwt]\nissuer = \"i\"\naudience = []\njwks_file = \"$DIR/jwks\"";
    refused(&place, &place.config(text, "", ""), "identity.jwt.audience", 3, "not be empty");
}

#[test]
fn a_way_in_that_the_listeners_do_not_offer_is_warned_of() {
    let place = Place::new();
    let warned = |top: &str, client: &str| {
        let text = place.config(top, "", &format!("{client}\nallow = [{{ app = \"*\", actions = [\"events\"] }}]"));
        let text = text.replace("$DIR", place.0.path().to_str().unwrap());
        let warnings = from_text(&text, Path::new("g")).unwrap().warnings;
        warnings.into_iter().map(|w| w.path).collect::<Vec<_>>()
    };
    let all = "spiffe_id = \"spiffe://c/a\"\ndns_san = \"a\"\njwt_subject = \"s\"\nunix_uid = 0";
    let of = |keys: &[&str]| keys.iter().map(|key| format!("clients[0].{key}")).collect::<Vec<_>>();
    assert_eq!(warned("", all), of(&["spiffe_id", "dns_san", "jwt_subject", "unix_uid"]));
    let offered = "[server]\nlisten = [\"127.0.0.1:1\", \"unix:/tmp/s\"]\n[server.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/a.key\"\n\
                   client_ca = \"$DIR/a.pem\"\n[identity.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_file = \"$DIR/jwks\"";
    assert_eq!(warned(offered, all), Vec::<String>::new());
    assert_eq!(warned("[server]\nlisten = [\"0.0.0.0:1\"]", ""), ["server.listen"]);
    let operators = |listen: &str, tls: &str| {
        warned(&format!("[admin]\nlisten = \"{listen}\"\napi_key_sha256 = \"{}\"\n{tls}", "b".repeat(64)), "")
    };
    let tls = "[admin.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/a.key\"";
    assert_eq!(operators("0.0.0.0:9090", ""), ["admin.listen"]);
    assert_eq!(operators("unix:/tmp/o", tls), ["admin.tls"]);
    for (listen, tls) in [("0.0.0.0:9090", tls), ("127.0.0.1:9090", tls), ("127.0.0.1:9090", "")] {
        assert_eq!(operators(listen, tls), Vec::<String>::new(), "{listen} {tls}");
    }
}

#[test]
fn each_fault_of_an_app_names_its_key_its_line_and_its_mend() {
    let place = Place::new();
    // Line 1 is empty, 2 to 4 are [[apps]], id and credential.
    for (app, path, line, word) in [
        ("regions = []", "apps[0].regions", 5, "at least one"),
        ("regions = [{ name = \"a/b\", base_url = \"https://h\" }]", "apps[0].regions[0].name", 5, "1 to 64"),
        (
            "regions = [{ name = \"a\", base_url = \"https://h\" }, { name = \"a\", base_url = \"https://g\" }]",
            "apps[0].regions[1].name",
            5,
            "another region",
        ),
        ("regions = [{ name = \"a\" }]", "apps[0].regions[0].base_url", 5, "missing"),
        ("[apps.quota]\nmesages = 1", "apps[0].quota.mesages", 6, "`messages`"),
        ("[apps.quota]\nmessages = 500", "apps[0].quota.messages", 6, "must be a table"),
        ("[apps.quota]\nmessages = { requests = 5 }", "apps[0].quota.messages.per", 6, "missing"),
        ("[apps.quota]\nmessages = { requests = 0, per = \"1s\" }", "apps[0].quota.messages.requests", 6, "1 to"),
        (
            "[apps.quota]\nhistory_count = { requests = 1, per = 1 }",
            "apps[0].quota.history_count.per",
            6,
            "must be a duration with a unit, as \"2s\"",
        ),
        ("[apps.quota]\nmessages = { share = \"messages\" }", "apps[0].quota.messages.share", 6, "itself"),
        ("[apps.quota]\nmessages = { share = \"nothing\" }", "apps[0].quota.messages.share", 6, "one of"),
        ("[apps.quota]\nmessages = { share = \"history_get\", per = \"1s\" }", "apps[0].quota.messages", 6, "both"),
        (
            "[apps.quota]\nmessages = { share = \"history_get\" }\nhistory_get = { share = \"history_count\" }",
            "apps[0].quota.messages.share",
            6,
            "does not chain",
        ),
        ("[apps.events]\nstreams = [\"logins\"]", "apps[0].events.streams[0]", 6, "\"user_events\""),
        ("[apps.events]\nstreams = [\"user_events\", \"user_events\"]", "apps[0].events.streams[1]", 6, "already"),
        ("[apps.events]\npoll_interval = \"2s\"", "apps[0].events.poll_interval", 6, "poll_interval_idle"),
        ("[apps.events]\norder_window = \"61s\"", "apps[0].events.order_window", 6, "minute"),
        ("[apps.events]\nretention_bytes = 5", "apps[0].events.retention_bytes", 6, "with a unit"),
        ("[apps.history]\nmax_limit = 0", "apps[0].history.max_limit", 6, "1 to"),
    ] {
        refused(&place, &place.config("", app, ""), path, line, word);
    }
    for url in [
        "ftp://h",
        "https://h/dev",
        "https://h?a=b",
        "https://u:s3cr3t-hunter2@h",
        "h",
        "https://",
        "https://h:0",
        "https://h:99999",
        "https://h#f",
        "//h",
        "https://h:x",
    ] {
        let app = format!("regions = [{{ name = \"a\", base_url = \"{url}\" }}]");
        refused(&place, &place.config("", &app, ""), "apps[0].regions[0].base_url", 5, "https:// and a host");
    }
}

#[test]
fn an_app_needs_an_id_of_its_own_and_a_credential_that_is_there() {
    let place = Place::new();
    let app = |id: &str, credential: &str| format!("[[apps]]\n{id}\n[apps.credential]\n{credential}\n");
    let basic = "kind = \"basic\"\napi_key = $SECRET\napi_secret = $SECRET";
    let key = |value: &str| app("id = \"a\"", &format!("kind = \"basic\"\napi_secret = $SECRET\napi_key = {value}"));
    for (text, path, line, word) in [
        ("[apps]\nid = \"a\"".into(), "apps", 1, "[[apps]]"),
        (app("", basic), "apps[0].id", 1, "missing"),
        (app("id = \"a.b\"", basic), "apps[0].id", 2, "1 to 64 characters"),
        (app("id = \"a\"", basic).repeat(2), "apps[1].id", 8, "another app"),
        ("[[apps]]\nid = \"a\"".into(), "apps[0].credential", 1, "missing"),
        (app("id = \"a\"", ""), "apps[0].credential.kind", 3, "missing"),
        (app("id = \"a\"", "kind = \"digest\""), "apps[0].credential.kind", 4, "\"basic\", \"token\""),
        (app("id = \"a\"", "kind = \"basic\"\napi_key = $SECRET"), "apps[0].credential.api_secret", 3, "missing"),
        (app("id = \"a\"", &format!("{basic}\nuid = \"u\"")), "apps[0].credential.uid", 7, "belongs to kind"),
        (app("id = \"a\"", "kind = \"token\"\napp_certificate = $SECRET"), "apps[0].credential.uid", 3, "missing"),
        (
            app("id = \"a\"", "kind = \"token\"\napp_certificate = $SECRET\nuid = \"\""),
            "apps[0].credential.uid",
            6,
            "1 to 256 bytes",
        ),
        (key("\"s3cr3t-hunter2\""), "apps[0].credential.api_key", 6, "must be { env"),
        (key("{ env = \"s3cr3t-hunter2\" }"), "apps[0].credential.api_key.env", 6, "name of an environment"),
        (key("{ env = \"RTM_NO_SUCH_VARIABLE\" }"), "apps[0].credential.api_key", 6, "is not set"),
        (key("{ file = \"s3cr3t-hunter2\" }"), "apps[0].credential.api_key", 6, "cannot be read"),
        (key("{ file = \"$DIR/colon\" }"), "apps[0].credential.api_key", 6, "colon"),
        (key("{ file = \"$DIR/empty\" }"), "apps[0].credential.api_key", 6, "empty"),
        (key("{ file = \"a\", env = \"b\" }"), "apps[0].credential.api_key", 6, "must be { env"),
        (key("{}"), "apps[0].credential.api_key", 6, "must be { env"),
    ] {
        refused(&place, &text, path, line, word);
    }
}

#[test]
fn each_fault_of_a_client_names_its_key_its_line_and_its_mend() {
    let place = Place::new();
    // The client's own keys end at line 8.
    for (client, path, line, word) in [
        ("weight = 0", "clients[0].weight", 9, "1 to"),
        ("spiffe_id = \"https://s3cr3t-hunter2\"", "clients[0].spiffe_id", 9, "SPIFFE ID"),
        ("spiffe_id = \"spiffe://corp\"", "clients[0].spiffe_id", 9, "SPIFFE ID"),
        ("spiffe_id = [\"spiffe://corp/a\", \"spiffe://Corp/a\"]", "clients[0].spiffe_id[1]", 9, "SPIFFE ID"),
        ("spiffe_id = \"spiffe://corp/../a\"", "clients[0].spiffe_id", 9, "SPIFFE ID"),
        ("spiffe_id = []", "clients[0].spiffe_id", 9, "not be empty"),
        ("dns_san = \"*.svc\"", "clients[0].dns_san", 9, "without *"),
        ("dns_san = [\"a\", \"A\"]", "clients[0].dns_san[1]", 9, "already"),
        ("jwt_subject = \"\"", "clients[0].jwt_subject", 9, "sub"),
        ("unix_uid = -1", "clients[0].unix_uid", 9, "0 to"),
        ("unix_uid = [0, \"root\"]", "clients[0].unix_uid[1]", 9, "whole number"),
        ("max_concurrent = 0", "clients[0].max_concurrent", 9, "1 to"),
        ("requests_per_second = 1.5", "clients[0].requests_per_second", 9, "whole number"),
        ("mode = \"reprot\"", "clients[0].mode", 9, "\"report\""),
        ("unix_uid = 0\n[[clients]]\nname = \"b\"\nunix_uid = [1, 0]", "clients[1].unix_uid", 12, "another client"),
        ("allow = \"*\"", "clients[0].allow", 9, "array"),
        ("allow = [{ app = \"*\" }]", "clients[0].allow[0].actions", 9, "missing"),
        ("allow = [{ app = \"*\", actions = [] }]", "clients[0].allow[0].actions", 9, "at least one"),
        ("allow = [{ app = \"*\", actions = [\"evnts\"] }]", "clients[0].allow[0].actions[0]", 9, "\"events\""),
        ("allow = [{ app = \"other\", actions = [\"events\"] }]", "clients[0].allow[0].app", 9, "not configured"),
        ("allow = [{ actions = [\"events\"] }]", "clients[0].allow[0].app", 9, "missing"),
        (
            "allow = [{ app = \"*\", actions = [\"messages\"], users = [\"\"] }]",
            "clients[0].allow[0].users[0]",
            9,
            "user id",
        ),
        ("[[clients]]\nname = \"billing\"", "clients[1].name", 10, "name of another"),
        ("[[clients]]\nname = \"a b\"", "clients[1].name", 10, "1 to 128"),
        ("[[clients]]\nweight = 1", "clients[1].name", 9, "missing"),
    ] {
        refused(&place, &place.config("", "", client), path, line, word);
    }
    let second = |hash: &str| place.config("", "", &format!("[[clients]]\nname = \"b\"\napi_key_sha256 = \"{hash}\""));
    refused(&place, &second(&"A".repeat(64)), "clients[1].api_key_sha256", 11, "key of another");
    refused(&place, &second(PLANTED), "clients[1].api_key_sha256", 11, "64 hex digits");
    refused(&place, &second(&"é".repeat(32)), "clients[1].api_key_sha256", 11, "64 hex digits");
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    refused(&place, &second(nothing), "clients[1].api_key_sha256", 11, "empty text");
}

#[test]
fn all_faults_are_told_at_once_in_the_files_order() {
    let place = Place::new();
    let text = "[server]\nlisten = [\"x\", \"y\"]\nfoo = 1\nmax_connections = 0\n[log]\nlevel = 3\n[[apps]]\nid = \"a b\"\n\
                [apps.credential]\nkind = \"basic\"\n[apps.history]\ndeadline = 30\n[[clients]]\nname = \"c\"\n\
                allow = [{ app = \"any\", actions = [\"fly\"] }]\n";
    let found: Vec<(String, usize)> = place.faults(text).into_iter().map(|f| (f.path, f.line.unwrap())).collect();
    let found: Vec<(&str, usize)> = found.iter().map(|(path, line)| (path.as_str(), *line)).collect();
    let want = [
        ("server.listen[0]", 2),
        ("server.listen[1]", 2),
        ("server.\"…\"", 3),
        ("server.max_connections", 4),
        ("log.level", 6),
        ("apps[0].id", 8),
        ("apps[0].credential.api_key", 9),
        ("apps[0].credential.api_secret", 9),
        ("apps[0].history.deadline", 12),
        ("clients[0].allow[0].actions[0]", 15),
    ];
    assert_eq!(found, want);
}

#[test]
fn an_error_of_syntax_is_one_fault_with_its_line() {
    for (text, line) in [
        ("[server]\nlisten = [\"a\"\nfoo =", 3),
        ("[server]\nmax_connections = 1\nmax_connections = 2", 3),
        ("\n\n[server", 3),
        ("api_key = s3cr3t-hunter2", 1),
        ("a = \"s3cr3t-hunter2\nb = 1", 1),
    ] {
        let faults = from_text(text, Path::new("g.toml")).unwrap_err();
        assert_eq!((faults.faults.len(), faults.faults[0].line), (1, Some(line)), "{faults}");
        assert!(faults.to_string().starts_with(&format!("g.toml:{line}: is not TOML: ")), "{faults}");
        assert!(!faults.to_string().contains("hunter2"), "{faults}");
    }
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_one_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.toml");
    assert!(from_file(&path).unwrap_err().to_string().contains("cannot be read: entity not found"));
    std::fs::write(&path, b"# one\n# t\xffwo").unwrap();
    let faults = from_file(&path).unwrap_err();
    assert_eq!((faults.faults[0].line, faults.faults[0].column), (Some(2), Some(4)));
}

#[test]
fn what_is_allowed_but_fights_is_warned_of() {
    let place = Place::new();
    let good = "allow = [{ app = \"*\", actions = [\"events\"] }]";
    for (top, app, client, path, word) in [
        (
            "[upstream]\nrequest_timeout = \"31s\"\n[server]\nshutdown_grace = \"1m\"",
            "",
            good,
            "apps[0].history.deadline",
            "shorter",
        ),
        ("[server]\nshutdown_grace = \"5s\"", "", good, "server.shutdown_grace", "cut a read"),
        ("", "[apps.events]\nretention = \"1m\"", good, "apps[0].events.retention", "dedup_window"),
        (
            "",
            "[apps.events]\npoll_interval = \"50ms\"\nstreams = [\"user_events\"]",
            good,
            "apps[0].events.poll_interval",
            "quota",
        ),
        ("", "[apps.history]\nhandle_ttl = \"1s\"", good, "apps[0].history.handle_ttl", "die"),
        (
            "",
            "regions = [{ name = \"a\", base_url = \"http://vendor.test\" }]",
            good,
            "apps[0].regions[0].base_url",
            "plain http",
        ),
        (&format!("[admin]\napi_key_sha256 = \"{}\"", "a".repeat(64)), "", good, "clients[0].api_key_sha256", "admin"),
        (
            &format!("[admin]\napi_key_sha256 = \"{}\"\nread_key_sha256 = \"{}\"", "b".repeat(64), "a".repeat(64)),
            "",
            good,
            "clients[0].api_key_sha256",
            "admin",
        ),
        ("", "", "", "clients[0]", "allowed nothing"),
        ("", "", &format!("{good}\n[[clients]]\nname = \"c\"\n{good}"), "clients[1]", "no credential"),
        (
            "",
            "",
            "allow = [{ app = \"*\", actions = [\"count\"], users = [\"a\"] }]",
            "clients[0].allow[0].users",
            "messages",
        ),
    ] {
        let loaded = from_text(&place.config(top, app, client), Path::new("g")).unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("{path}: {:#?}", loaded.warnings) };
        assert!(warning.path == path && warning.what.contains(word), "{warning:#?}");
    }
    for host in ["127.0.0.1:9", "[::1]", "localhost", "sim.localhost:80", "[::ffff:127.0.0.1]"] {
        let app = format!("regions = [{{ name = \"a\", base_url = \"http://{host}\" }}]");
        assert_eq!(from_text(&place.config("", &app, good), Path::new("g")).unwrap().warnings, [], "{host}");
    }
    let nobody = place.config("", "", "").split("[[clients]]").next().unwrap().to_owned();
    assert_eq!(from_text(&nobody, Path::new("g")).unwrap().warnings[0].path, "clients");
}

#[test]
fn addresses_of_one_port_clash_only_where_the_system_would_refuse_them() {
    let place = Place::new();
    let listen = |a: &str, b: &str| place.config(&format!("[server]\nlisten = [\"{a}\", \"{b}\"]"), "", "");
    for (a, b) in
        [("127.0.0.1:0", "127.0.0.2:0"), ("127.0.0.1:1", "127.0.0.2:1"), ("0.0.0.0:1", "[::1]:1"), ("unix:a", "unix:b")]
    {
        assert!(from_text(&listen(a, b), Path::new("g")).is_ok(), "{a} {b}");
    }
    for (a, b) in [
        ("127.0.0.1:1", "0.0.0.0:1"),
        ("0.0.0.0:1", "[::]:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "[::ffff:127.0.0.1]:1"),
        ("[::ffff:0.0.0.0]:1", "127.0.0.1:1"),
    ] {
        assert!(from_text(&listen(a, b), Path::new("g")).is_err(), "{a} {b}");
    }
}

properties! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9_.=\\[\\]{}\", \n#-]{0,120}", value in ".{0,40}") {
        let _ = from_text(&text, Path::new("g"));
        let value = toml::Value::String(value).to_string();
        for key in ["server.header_read_timeout", "server.request_body_limit", "server.listen", "log.level", "store.path"] {
            let _ = from_text(&format!("{key} = {value}"), Path::new("g"));
        }
    }

    #[test]
    fn no_duration_makes_it_panic(text in "([0-9]{1,20}(\\.[0-9]{1,10})?(ns|ms|s|m|h|d|y)? ?){1,3}") {
        let _ = from_text(&format!("server.shutdown_grace = \"{text}\""), Path::new("g"));
        let _ = from_text("server.shutdown_grace = \"18446744073709551615s 1000ms\"", Path::new("g"));
    }
}

/// Writes a key as keys are kept: nobody else may read it.
pub(super) fn write_key(path: &Path, key: &rcgen::KeyPair) {
    std::fs::write(path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_key_that_everybody_may_read_is_warned_of() {
    let files = Place::new();
    let key = files.0.path().join("a.key");
    let warned = |mode| {
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let text = "[server.tls]\ncert = \"$DIR/a.pem\"\nkey = \"$DIR/a.key\"";
        let loaded =
            from_text(&text.replace("$DIR", &files.0.path().display().to_string()), Path::new("g.toml")).unwrap();
        loaded.warnings.iter().any(|warning| warning.path == "server.tls.key")
    };
    assert!(!warned(0o600) && !warned(0o640) && warned(0o644));
}
