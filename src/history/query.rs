//! What a caller asks for, read from a body or a query string into one normal form.
//!
//! Invariants: two requests that mean the same give equal values, so they can share one vendor request; what is refused
//! here costs the vendor nothing, and the refusal names the parameter. Nothing is clamped: a limit too large is
//! refused. A window is of whole seconds; what of it was asked for, where that is less, is kept beside it. No input
//! makes it panic.

mod moment;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::error::Error;
use crate::vendor::history::{Direction, Filter};
use moment::Moment;
pub(super) use moment::{Side, Within};

/// The vendor's default (its page).
const DEFAULT_LIMIT: usize = 20;

/// Longest name of a sender or receiver, in bytes. The vendor's are at most 64; this only bounds what is kept.
const MAX_NAME: usize = 1024;

/// Largest offset: what every JSON reader can hold exactly.
const MAX_OFFSET: u64 = (1 << 53) - 1;

/// A history query of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) filter: Filter,
    /// Of those, the ones of these milliseconds; they alone count.
    pub(super) within: Within,
    /// How many to skip.
    pub(super) offset: u64,
    /// How many to return, at least 1.
    pub(super) limit: usize,
    pub(super) direction: Direction,
}

#[derive(Deserialize)]
struct BodyIn<'a> {
    #[serde(borrow)]
    filter: Option<&'a RawValue>,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    order: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct FilterIn<'a> {
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    destination: Option<&'a RawValue>,
    #[serde(borrow)]
    start_time: Option<&'a RawValue>,
    #[serde(borrow)]
    end_time: Option<&'a RawValue>,
}

/// Reads the body of `POST …/history/query`. Members nobody knows are dropped.
pub(super) fn parse_body(body: &[u8], max_limit: usize) -> Result<Query, Error> {
    let text = std::str::from_utf8(body).map_err(|_| bad("body", "is not UTF-8"))?;
    let body: BodyIn<'_> = object("body", text)?;
    let filter = body.filter.ok_or_else(|| bad("filter", "is missing"))?;
    let filter: FilterIn<'_> = object("filter", filter.get())?;
    let (filter, within) = checked(
        "filter.",
        [name("filter.source", filter.source)?, name("filter.destination", filter.destination)?],
        [
            filter.start_time.map(|raw| time_member("filter.start_time", raw)).transpose()?,
            filter.end_time.map(|raw| time_member("filter.end_time", raw)).transpose()?,
        ],
    )?;
    let offset = match body.offset {
        None => 0,
        Some(raw) => whole(raw)
            .filter(|offset| *offset <= MAX_OFFSET)
            .ok_or_else(|| bad("offset", "must be a whole number, 0 or more"))?,
    };
    let limit = match body.limit {
        None => DEFAULT_LIMIT.min(max_limit),
        Some(raw) => whole(raw)
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=max_limit).contains(limit))
            .ok_or_else(|| bad("limit", &format!("must be a whole number from 1 to {max_limit}")))?,
    };
    let direction = match body.order.map(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get())) {
        None => Direction::Asc,
        Some(Ok(word)) if word == "asc" => Direction::Asc,
        Some(Ok(word)) if word == "desc" => Direction::Desc,
        Some(_) => return Err(bad("order", "must be \"asc\" or \"desc\"")),
    };
    Ok(Query { filter, within, offset, limit, direction })
}

/// Reads the query parameters of `GET …/history/count`. Values may be quoted, as in the vendor's own examples.
/// Parameters nobody knows are dropped.
pub(super) fn parse_count(query: &[(String, String)]) -> Result<(Filter, Within), Error> {
    let mut given = [const { None }; 4];
    for (key, value) in query {
        let Some(at) = FILTER.iter().position(|name| name == key) else { continue };
        let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        // Left of a pair, or a pair within a pair: whether the vendor takes it for a part of the name is not known.
        if bare.starts_with('"') || bare.ends_with('"') {
            return Err(bad(FILTER[at], "has quotation marks that are no pair around it"));
        }
        once(FILTER[at], &mut given[at], bare)?;
    }
    filter_of(given)
}

/// Reads the query parameters of `GET /v1/apps/{app}/history`, and its cursor. They are our own: one nobody knows is
/// refused, and nothing is unquoted.
pub(super) fn parse_stream(query: &[(String, String)]) -> Result<(Query, Option<&str>), Error> {
    let mut given = [const { None }; 4];
    let (mut limit, mut order, mut cursor) = (None, None, None);
    for (key, value) in query {
        let (name, place) = match key.as_str() {
            "limit" => ("limit", &mut limit),
            "order" => ("order", &mut order),
            "cursor" => ("cursor", &mut cursor),
            key => match FILTER.iter().position(|name| *name == key) {
                Some(at) => (FILTER[at], &mut given[at]),
                None => return Err(Error::BadRequest(format!("{}: unknown parameter", printable(key)))),
            },
        };
        once(name, place, value)?;
    }
    let (filter, within) = filter_of(given)?;
    let limit = match limit {
        None => usize::MAX,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| bad("limit", "must be a whole number, 1 or more"))?,
    };
    let direction = match order {
        None | Some("asc") => Direction::Asc,
        Some("desc") => Direction::Desc,
        Some(_) => return Err(bad("order", "must be asc or desc")),
    };
    Ok((Query { filter, within, offset: 0, limit, direction }, cursor))
}

/// The parameters that make a filter.
const FILTER: [&str; 4] = ["source", "destination", "start_time", "end_time"];

fn once<'a>(name: &str, place: &mut Option<&'a str>, value: &'a str) -> Result<(), Error> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(name, "is given twice")),
    }
}

/// A parameter's name as an answer may repeat it: a word.
fn printable(name: &str) -> &str {
    let is_word = (1..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    if is_word { name } else { "…" }
}

/// The filter that its parameters make, in the order of [`FILTER`].
fn filter_of([source, destination, start, end]: [Option<&str>; 4]) -> Result<(Filter, Within), Error> {
    let name = |name, text: Option<&str>| usable(name, text.unwrap_or_default().to_owned());
    checked(
        "",
        [name("source", source)?, name("destination", destination)?],
        [
            start.map(|text| moment::read("start_time", text)).transpose()?,
            end.map(|text| moment::read("end_time", text)).transpose()?,
        ],
    )
}

/// The rules that a filter's members obey together. `at` stands before their names in a refusal.
fn checked(at: &str, names: [Option<Arc<str>>; 2], times: [Option<Moment>; 2]) -> Result<(Filter, Within), Error> {
    let [source, destination] = names;
    if source.is_none() && destination.is_none() {
        return Err(bad(&format!("{at}source"), &format!("and {at}destination are both absent or empty")));
    }
    let [start, end] = times;
    let start = start.ok_or_else(|| bad(&format!("{at}start_time"), "is missing"))?;
    let end = end.ok_or_else(|| bad(&format!("{at}end_time"), "is missing"))?;
    if start.down > end.up {
        return Err(bad(&format!("{at}start_time"), &format!("is after {at}end_time")));
    }
    let ((start, end), within) = moment::window(start, end);
    Ok((Filter { source, destination, start, end }, within))
}

fn bad(parameter: &str, what: &str) -> Error {
    Error::BadRequest(format!("{parameter} {what}"))
}

/// A JSON object. (A derived reader would take a list for one.)
fn object<'a, T: Deserialize<'a>>(parameter: &str, text: &'a str) -> Result<T, Error> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(bad(parameter, "must be a JSON object"));
    }
    serde_json::from_str(text).map_err(|why| bad(parameter, &format!("is not a JSON object: {why}")))
}

fn name(parameter: &str, raw: Option<&RawValue>) -> Result<Option<Arc<str>>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    let text: String = serde_json::from_str(raw.get()).map_err(|_| bad(parameter, "must be a string"))?;
    usable(parameter, text)
}

/// Empty is the same as absent: public clients send `""` for "not set".
fn usable(parameter: &str, text: String) -> Result<Option<Arc<str>>, Error> {
    if text.len() > MAX_NAME {
        return Err(bad(parameter, &format!("is longer than {MAX_NAME} bytes")));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

fn whole(raw: &RawValue) -> Option<u64> {
    whole_number(&serde_json::from_str(raw.get()).ok()?)
}

/// Some encoders write whole numbers as 1433088000.0 or 2e1: JSON has one kind of number. Beyond 1e15 a float may be
/// rounded, so there only digits are taken.
fn whole_number(number: &Number) -> Option<u64> {
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..1e15).contains(float));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and from 0 to 1e15")]
    number.as_u64().or(float.map(|float| float as u64))
}

fn time_member(parameter: &str, raw: &RawValue) -> Result<Moment, Error> {
    match serde_json::from_str(raw.get()) {
        Ok(Value::String(text)) => moment::read(parameter, &text),
        Ok(Value::Number(number)) => match moment::decimal(raw.get().trim()) {
            Some(_) => moment::read(parameter, raw.get().trim()),
            None => moment::whole(parameter, whole_number(&number)),
        },
        _ => Err(moment::bad(parameter)),
    }
}

#[cfg(test)]
mod tests;
