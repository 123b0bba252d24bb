//! What the loader asks of a configuration: a [`Survey`] is taken while one is read that has every key.
//!
//! So the forms of values stand once, in the code that reads them, and the JSON Schema is made from there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::documented;
use super::key_path::{join, without_indices};

/// What the value of a key has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// Any text; of a key of which more is known, that.
    Text,
    Flag,
    Count {
        least: u32,
        most: u32,
    },
    Duration,
    Size,
    Word(String),
    Address,
    /// 64 hexadecimal digits.
    Sha256,
    /// `{ env = "NAME" }` or `{ file = "PATH" }`.
    Secret,
    Table,
    List,
    /// A value by itself, or a list of such.
    OneOrMore,
}

impl Form {
    /// Nothing of what another of these says better.
    fn in_words(&self, all: &BTreeSet<&Self>) -> Option<String> {
        let says_more = |form: &&Self| !matches!(form, Self::Text | Self::List | Self::OneOrMore);
        Some(match self {
            Self::Text if all.iter().any(says_more) => return None,
            Self::Table if all.contains(&Self::Secret) => return None,
            Self::Word(_) | Self::List | Self::OneOrMore => return None,
            Self::Text => "text".to_owned(),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Count { least, most } => format!("{least} to {most}"),
            Self::Duration => "duration".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Address => "URL".to_owned(),
            Self::Sha256 => "64 hex digits".to_owned(),
            Self::Secret => "`{ file = … }` or `{ env = … }`".to_owned(),
            Self::Table => "table".to_owned(),
        })
    }
}

/// The tables, keys and forms that a reading came by. Paths are written with `[]` for any entry of a list.
#[derive(Debug, Default)]
pub(super) struct Survey {
    tables: BTreeMap<String, Keys>,
    forms: BTreeMap<String, BTreeSet<Form>>,
    /// Without `[]`, as the documented file is asked for them.
    with_default: BTreeSet<String>,
}

/// Of a table: what may stand in it, and what has to in each of its kinds.
#[derive(Debug)]
struct Keys {
    known: BTreeSet<&'static str>,
    needed: BTreeSet<&'static str>,
}

impl Survey {
    /// A table was read: these may stand in it, and these must.
    pub(super) fn table(&mut self, path: &str, known: &[&'static str], needed: &[&'static str]) {
        let (known, needed) = (known.iter().copied(), BTreeSet::from_iter(needed.iter().copied()));
        let keys = self
            .tables
            .entry(any_entry(path))
            .or_insert_with(|| Keys { known: BTreeSet::new(), needed: needed.clone() });
        keys.known.extend(known);
        keys.needed.retain(|key| needed.contains(key));
    }

    /// A value was read as this.
    pub(super) fn form(&mut self, path: &str, form: Form) {
        self.forms.entry(any_entry(path)).or_default().insert(form);
    }

    /// A key was read whose default the documented file has.
    pub(super) fn has_default(&mut self, path: &str) {
        self.with_default.insert(without_indices(path));
    }

    /// Takes in what another reading came by.
    pub(super) fn extend(&mut self, other: Self) {
        for (path, Keys { known, needed }) in other.tables {
            let (known, needed): (Vec<_>, Vec<_>) = (known.into_iter().collect(), needed.into_iter().collect());
            self.table(&path, &known, &needed);
        }
        for (path, forms) in other.forms {
            self.forms.entry(path).or_default().extend(forms);
        }
        self.with_default.extend(other.with_default);
    }

    /// The places of all keys, without `[]`.
    #[cfg(test)]
    pub(super) fn paths(&self) -> BTreeSet<String> {
        let keys = self.tables.iter().flat_map(|(path, keys)| keys.known.iter().map(move |key| join(path, key)));
        keys.map(|path| without_indices(&path)).collect()
    }

    /// The places, without `[]`, of keys whose default the documented file has.
    #[cfg(test)]
    pub(super) fn defaults(&self) -> &BTreeSet<String> {
        &self.with_default
    }

    /// Whether what stands in the documented file is the key's default. `path` is without `[]`.
    pub(super) fn is_default(&self, path: &str) -> bool {
        self.with_default.contains(path)
    }

    /// What the value at a path without `[]` has to be, in words.
    pub(super) fn in_words(&self, path: &str) -> String {
        let at = |form_path: &str| without_indices(form_path) == path;
        let forms: BTreeSet<&Form> =
            self.forms.iter().filter(|(at_path, _)| at(at_path)).flat_map(|(_, forms)| forms).collect();
        let is_list = forms.contains(&Form::List);
        let words: Vec<String> = forms
            .iter()
            .filter_map(|form| if let Form::Word(word) = form { Some(format!("`{word:?}`")) } else { None })
            .collect();
        let mut said: Vec<String> = forms.iter().filter_map(|form| form.in_words(&forms)).collect();
        said.extend((!words.is_empty()).then(|| words.join(", ")));
        let said = said.join(", or ");
        match (forms.contains(&Form::OneOrMore), is_list) {
            (true, _) => format!("{said}; or several in `[]`"),
            (false, true) => format!("list: {said}"),
            _ => said,
        }
    }

    /// The JSON Schema (draft 2020-12) of a configuration.
    pub(super) fn schema(&self) -> Value {
        let mut schema = self.of_table("");
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["title"] = "Configuration of rtm-gateway".into();
        schema
    }

    fn of_table(&self, path: &str) -> Value {
        let Some(Keys { known, needed }) = self.tables.get(path) else { return json!({ "type": "object" }) };
        let properties: Map<_, _> =
            known.iter().map(|key| ((*key).to_owned(), self.of_key(&join(path, key)))).collect();
        let mut table = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !needed.is_empty() {
            table["required"] = json!(needed);
        }
        table
    }

    fn of_key(&self, path: &str) -> Value {
        let mut schema = self.of_value(path);
        let path = &without_indices(path);
        if let Some(key) = documented::key(path) {
            schema["description"] = key.about.clone().into();
        }
        if self.is_default(path)
            && let Some(default) = documented::value(path)
        {
            schema["default"] = documented::json(default.get_ref());
        }
        schema
    }

    fn of_value(&self, path: &str) -> Value {
        let none = BTreeSet::new();
        let forms = self.forms.get(path).unwrap_or(&none);
        if forms.contains(&Form::OneOrMore) {
            let entries = self.forms.get(&format!("{path}[]")).unwrap_or(&none);
            let is_of_one = |form: &&Form| !matches!(form, Form::OneOrMore | Form::List);
            let one = self.of_forms(path, &forms.union(entries).filter(is_of_one).cloned().collect());
            return json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "uniqueItems": true }] });
        }
        self.of_forms(path, forms)
    }

    fn of_forms(&self, path: &str, forms: &BTreeSet<Form>) -> Value {
        let words: Vec<_> =
            forms.iter().filter_map(|form| if let Form::Word(word) = form { Some(word) } else { None }).collect();
        let is_secret = forms.contains(&Form::Secret);
        let is_known = |form: &&Form| match form {
            Form::Text | Form::Word(_) => false,
            // A secret is one that says where it is kept.
            Form::Table => !is_secret,
            _ => true,
        };
        let mut any: Vec<Value> = forms.iter().filter(is_known).map(|form| self.of_form(path, form)).collect();
        if !words.is_empty() {
            any.push(json!({ "enum": words }));
        }
        match (any.len(), forms.contains(&Form::Text)) {
            (0, true) => json!({ "type": "string" }),
            (0, false) => json!({}),
            (1, _) => any.remove(0),
            _ => json!({ "anyOf": any }),
        }
    }

    fn of_form(&self, path: &str, form: &Form) -> Value {
        match form {
            Form::Text | Form::Word(_) | Form::OneOrMore => json!({ "type": "string" }),
            Form::Flag => json!({ "type": "boolean" }),
            Form::Count { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Form::Duration => json!({ "type": "string", "pattern": "^ *([0-9]+ *[a-zA-Z]+ *)+$" }),
            Form::Address => json!({ "type": "string", "format": "uri" }),
            Form::Size => json!({ "type": "string", "pattern": "^[0-9][0-9.]* *[A-Za-z]+$" }),
            Form::Sha256 => json!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" }),
            Form::Secret => json!({
                "type": "object",
                "properties": { "env": { "type": "string" }, "file": { "type": "string" } },
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            }),
            Form::Table => self.of_table(path),
            Form::List => json!({ "type": "array", "items": self.of_value(&format!("{path}[]")) }),
        }
    }
}

/// A path with `[]` for the number of each entry: what holds of one entry holds of all.
fn any_entry(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| path + "[]" + part.split_once(']').map_or("", |(_, rest)| rest))
}
