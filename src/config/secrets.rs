//! Where secrets are kept: how such a place is written, and that what is kept there can be used.
//!
//! Invariant: no finding repeats the name of a file or variable. A secret may stand in its place by mistake.

use std::path::PathBuf;

use toml::de::DeValue;

use super::document::node::Node;
use super::survey::Form;
use crate::kernel::secret::{Secret, SecretError, SecretSource};

/// Where a secret is kept. The secret is read once, to see that it is there and passes `usable`.
pub(super) fn source(node: Node<'_>, usable: impl Fn(&Secret) -> Result<(), &'static str>) -> Option<SecretSource> {
    let (what, mend) = ("must be { env = \"NAME\" } or { file = \"PATH\" }", "A secret is never written here itself");
    node.must_be(|| Form::Secret);
    let DeValue::Table(_) = node.value() else { return node.fault(what, mend) };
    let source = node.table(|t| match (t.take("env"), t.take("file")) {
        (Some(env), None) => variable(env).map(SecretSource::Env),
        (None, Some(file)) => file.path().map(SecretSource::File),
        _ => node.fault(what, mend),
    })??;
    if !node.looks() {
        return Some(source);
    }
    kept(&node, &source).and_then(|secret| match usable(&secret) {
        Ok(()) => Some(source),
        Err(why) => node.fault(why, "Look at what is kept there"),
    })
}

/// The path of a file that holds a secret. It is read once, to see that it is there.
pub(super) fn file(node: Node<'_>) -> Option<PathBuf> {
    let path = node.clone().path()?;
    if !node.looks() {
        return Some(path);
    }
    kept(&node, &SecretSource::File(path.clone())).map(|_| path)
}

/// The secret that is kept there, which is watched from now on.
fn kept(node: &Node<'_>, source: &SecretSource) -> Option<Secret> {
    if let Some(path) = source.file() {
        node.keeps_secret_in(path.to_owned());
    }
    // Neither name is repeated: a secret written in its place by mistake would be shown.
    match source.read() {
        Ok(secret) => Some(secret),
        Err(SecretError::NoVariable(_)) => {
            node.fault("names an environment variable that is not set", "Set it where the gateway is started")
        }
        Err(SecretError::Unusable(_)) => {
            node.fault("is empty, or is not one line of text", "Look at what is kept there")
        }
        Err(SecretError::Stray(_, what)) => node.fault(
            format!("has {what} around it, which would be sent with it"),
            "Take them away where it is kept, or make another secret",
        ),
        Err(SecretError::Unreadable { why, .. }) => node.fault(
            format!("names a file that cannot be read: {why}"),
            "Make it readable to the gateway; relative paths are taken from the working directory",
        ),
    }
}

fn variable(node: Node<'_>) -> Option<String> {
    let text = node.clone().text()?;
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || !text.chars().all(name) {
        return node.fault("must be the name of an environment variable", "A secret is never written here itself");
    }
    Some(text.to_owned())
}
