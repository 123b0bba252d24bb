//! The OpenAPI document and the gateway say the same: operations, parameters, statuses, and who may read it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hyper::{Method, Uri};
use rtm_gateway::admin;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::request::openapi::DOCUMENT;
use rtm_gateway::request::route::{Operation, Route};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::front::stage::{APP, DEADLINE, Stage};

const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

fn document() -> Value {
    serde_json::from_str(&DOCUMENT).unwrap()
}

/// What a `$ref` stands for, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(place) => document.pointer(place.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// An operation of the document.
struct Documented<'a> {
    document: &'a Value,
    method: String,
    path: &'a str,
    is_callers: bool,
    is_operators: bool,
    about: &'a Value,
}

fn operations(document: &Value) -> Vec<Documented<'_>> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let servers: Vec<_> = item["servers"].as_array().unwrap().iter().map(|s| s["url"].as_str().unwrap()).collect();
        for method in METHODS.into_iter().filter(|method| item.get(method).is_some()) {
            all.push(Documented {
                document,
                method: method.to_uppercase(),
                path,
                is_callers: servers.contains(&"{gateway}"),
                is_operators: servers.contains(&"{admin}"),
                about: &item[method],
            });
        }
    }
    all
}

impl Documented<'_> {
    fn parameters(&self) -> Vec<&Value> {
        let listed = self.about["parameters"].as_array().into_iter().flatten();
        listed.map(|parameter| resolved(self.document, parameter)).collect()
    }

    /// The path, with each parameter's example, and what must stand in the query.
    fn target(&self) -> String {
        let mut target = self.path.to_owned();
        let mut query = Vec::new();
        for parameter in self.parameters() {
            let (name, example) = (parameter["name"].as_str().unwrap(), example(parameter));
            match parameter["in"].as_str().unwrap() {
                "path" => target = target.replace(&format!("{{{name}}}"), &example),
                "query" if parameter["required"] == true => query.push(format!("{name}={example}")),
                _ => {}
            }
        }
        // Of two that are each optional, one is needed.
        if self.parameters().iter().any(|parameter| parameter["name"] == "destination") {
            query.push("destination=lobby".to_owned());
        }
        format!("{target}?{}", query.join("&"))
    }

    /// Whether the document says that such an answer may come.
    fn knows(&self, answer: &Head) -> bool {
        let response = resolved(self.document, &self.about["responses"][answer.status.to_string()]);
        let kind = answer.kind.split(';').next().unwrap();
        response["content"].get(kind).is_some()
    }

    fn body(&self) -> Option<String> {
        let content = self.about.get("requestBody")?["content"]["application/json"]["example"].clone();
        Some(content.to_string())
    }
}

fn example(parameter: &Value) -> String {
    let example = &parameter["example"];
    let example = example.as_array().map_or(example, |examples| &examples[0]);
    let example = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
    example.replace(' ', "%20")
}

/// The beginning of an answer: some have no end.
struct Head {
    status: u16,
    kind: String,
    text: String,
}

async fn ask(port: SocketAddr, method: &str, target: &str, headers: &str, body: Option<&str>) -> Head {
    let asking = async {
        let mut tcp = TcpStream::connect(port).await.unwrap();
        let body = body.map_or_else(String::new, |body| {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
        let end = if body.is_empty() { "\r\n" } else { "" };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}{body}{end}");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(tcp.read_u8().await.unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = text.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().to_owned();
        Head { status, kind, text }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("an answer in time")
}

const KEY: &str = "X-API-Key: all-key\r\n";

#[test]
fn the_document_lists_exactly_the_callers_operations() {
    let document = document();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut documented = BTreeSet::new();
    for operation in operations(&document).iter().filter(|operation| operation.is_callers && !operation.is_operators) {
        let (method, uri) = (Method::from_bytes(operation.method.as_bytes()).unwrap(), operation.target());
        let route = Route::parse(&method, &uri.parse::<Uri>().unwrap());
        let route = route.unwrap_or_else(|why| panic!("{method} {uri}: {why:?}"));
        let is = route.operation();
        assert_eq!((is.method(), is.path()), (operation.method.as_str(), operation.path), "{uri}");
        assert_eq!(operation.about["x-rtm-action"], route.action().as_str(), "{uri}");
        documented.insert((operation.method.clone(), operation.path.to_owned()));
    }
    let all: BTreeSet<_> = Operation::ALL.iter().map(|o| (o.method().to_owned(), o.path().to_owned())).collect();
    assert_eq!(documented, all);
}

#[test]
fn the_document_lists_exactly_the_operators_operations() {
    let document = document();
    let documented = operations(&document);
    let documented = documented.iter().filter(|operation| operation.is_operators);
    let documented: BTreeSet<_> = documented.map(|o| (o.method.clone(), o.path.to_owned())).collect();
    let all = admin::Operation::all().map(|o| (o.method().to_owned(), o.path().to_owned()));
    assert_eq!(documented, all.collect());
}

/// The log and the operators' index call an operation as the document does.
#[test]
fn each_operation_has_its_name_in_the_document() {
    let document = document();
    let callers = Operation::ALL.iter().map(|o| (o.method(), o.path(), o.id()));
    let operators = admin::Operation::all().map(|o| (o.method(), o.path(), o.id()));
    for (method, path, id) in callers.chain(operators) {
        assert_eq!(document["paths"][path][method.to_lowercase()]["operationId"], id, "{method} {path}");
    }
    for operation in admin::Operation::all() {
        let needs = &document["paths"][operation.path()][operation.method().to_lowercase()]["x-rtm-needs"];
        let is_act = matches!(operation, admin::Operation::Act(_));
        assert_eq!(needs == "operator key", is_act, "{operation:?}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_past_the_operators_key() {
    let stage = Stage::start().await;
    let mut config = rtm_gateway::config::Config::clone(&stage.parts.config.load());
    config.admin.api_key_sha256 = Some([7; 32]);
    stage.parts.config.store(std::sync::Arc::new(config));
    for target in ["/admin/v1/apps", "/%61dmin/v1/apps", "/admin/%76%31/backup", "/admin", "/admin/v1/nothing"] {
        let answer = ask(stage.admin, "GET", target, "X-API-Key: other\r\n", None).await;
        assert_eq!(answer.status, 401, "{target}: {}", answer.text);
    }
    assert_eq!(ask(stage.admin, "GET", "/healthz", "", None).await.status, 200);
    stage.stopped().await;
}

#[tokio::test]
async fn each_documented_parameter_is_taken_and_an_unknown_one_refused() {
    let stage = Stage::start().await;
    let document = document();
    for operation in operations(&document) {
        let port = if operation.is_operators { stage.admin } else { stage.addr };
        let (method, target, body) = (operation.method.as_str(), operation.target(), operation.body());
        let plain = ask(port, method, &target, KEY, body.as_deref()).await;
        assert!(plain.status != 400 && operation.knows(&plain), "{method} {target}: {}", plain.text);
        for parameter in operation.parameters() {
            let (name, example) = (parameter["name"].as_str().unwrap(), example(parameter));
            let with = parameter["x-rtm-with"].as_str().unwrap_or_default();
            let (target, headers) = match parameter["in"].as_str().unwrap() {
                "query" if parameter["required"] != true && name != "destination" => {
                    (format!("{target}&{name}={example}{with}"), KEY.to_owned())
                }
                "header" => (target.clone(), format!("{KEY}{name}: {example}\r\n")),
                _ => continue,
            };
            if example == "null" {
                continue; // Only the gateway can make one.
            }
            let headers = match parameter["x-rtm-accept"].as_str() {
                Some(kind) => format!("{headers}Accept: {kind}\r\n"),
                None => headers,
            };
            // Nobody waits for long.
            Stream::ALL.iter().for_each(|stream| drop(stage.sim.emit_many(APP, *stream, 1)));
            let answer = ask(port, method, &target, &headers, body.as_deref()).await;
            assert!(answer.status != 400 && operation.knows(&answer), "{method} {target}: {}", answer.text);
        }
        let answer = ask(port, method, &format!("{target}&nonsense=1"), KEY, body.as_deref()).await;
        let refused = operation.about.get("x-rtm-other-parameters").is_none();
        // Of what is not there it is not asked what it takes.
        let is_refused = answer.status == 400 || (answer.status >= 404 && answer.status == plain.status);
        assert_eq!(is_refused, refused, "{method} {target}: {}", answer.text);
        assert!(operation.knows(&answer), "{method} {target}: {}", answer.text);
    }
    stage.stopped().await;
}

#[tokio::test]
async fn anybody_may_read_the_document_on_both_ports() {
    let stage = Stage::start().await;
    for port in [stage.addr, stage.admin] {
        let answer = ask(port, "GET", "/openapi.json", "", None).await;
        assert_eq!((answer.status, answer.kind.as_str()), (200, "application/json"));
        assert!(answer.text.contains(&format!("content-length: {}\r\n", DOCUMENT.len())), "{}", answer.text);
        let answer = ask(port, "POST", "/openapi.json", "", None).await;
        assert_eq!(answer.status, 405);
        assert!(answer.text.contains("allow: GET, HEAD\r\n"), "{}", answer.text);
    }
    let nowhere = stage.get("/nowhere").await;
    assert!(nowhere.text().contains("/openapi.json"), "{}", nowhere.text());
    stage.stopped().await;
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_says_what_it_is() {
    fn check(document: &Value, value: &Value) {
        if value.get("$ref").is_some() {
            assert!(!resolved(document, value).is_null(), "{value}");
        }
        match value {
            Value::Object(members) => members.values().for_each(|value| check(document, value)),
            Value::Array(list) => list.iter().for_each(|value| check(document, value)),
            _ => {}
        }
    }
    let document = document();
    check(&document, &document);
    let mut ids = BTreeSet::new();
    for operation in operations(&document) {
        assert!(operation.about["summary"].is_string() && operation.about["description"].is_string());
        assert!(ids.insert(operation.about["operationId"].as_str().unwrap()), "{}", operation.path);
        let refusals =
            operation.about["responses"].as_object().unwrap().keys().filter(|status| status.as_str() >= "400");
        assert!(refusals.count() > 0, "{}", operation.path);
    }
}

/// Whoever makes values from the document makes those that are taken: of text that is not free it says the form.
#[test]
fn every_text_in_a_path_or_query_has_a_form() {
    fn is_free(schema: &Value) -> bool {
        let of = |list: &str| schema[list].as_array().is_some_and(|all| all.iter().any(is_free));
        let said = ["enum", "format", "pattern"].iter().any(|form| schema.get(form).is_some());
        of("anyOf")
            || of("oneOf")
            || schema["items"].is_object() && is_free(&schema["items"])
            || schema["type"] == "string" && !said
    }
    let document = document();
    let mut seen = 0;
    for operation in operations(&document) {
        for parameter in operation.parameters() {
            let schema = resolved(&document, &parameter["schema"]);
            if matches!(parameter["in"].as_str(), Some("path" | "query")) {
                seen += 1;
                assert!(!is_free(schema), "{} {}: {parameter}", operation.method, operation.path);
            }
        }
    }
    assert!(seen > 50, "{seen}");
}
