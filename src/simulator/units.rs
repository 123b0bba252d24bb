//! Durations with a unit (`"250ms"`) in the control API and the configuration.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, de::Error as _};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|why| D::Error::custom(format!("{text:?} is no duration: {why}")))
}
