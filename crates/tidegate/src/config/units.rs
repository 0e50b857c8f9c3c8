//! Durations and byte sizes as people write them: `"30s"`, `"64MiB"`.
//!
//! Invariant: what `format_duration` and `ByteSize` write, they read back to the same value. There are no
//! fractions and no sums (`"1m30s"`): each length of time has few spellings, and none needs a float.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, read from `"64MiB"`, `"1GiB"`, `"4KiB"`, `"512B"`, `"512"` or a plain number.
///
/// # Examples
///
/// ```
/// use tidegate::config::ByteSize;
///
/// let size: ByteSize = "4KiB".parse()?;
/// assert_eq!(size.get(), 4096);
/// assert_eq!(size.to_string(), "4KiB");
/// # Ok::<(), tidegate::config::UnitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes for use in memory; the largest `usize` where the number is larger.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    /// Writes the largest unit that divides the size, so that nothing is lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes))
            .unwrap_or(&SIZE_UNITS[0]);
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let bytes = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| UnitError::UnknownUnit { unit: unit.to_owned() })?;
        number.checked_mul(bytes).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Why a text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The text does not begin with a digit, or holds more than digits and a unit.
    #[error("not a whole number with a unit")]
    NoNumber,
    /// A duration without a unit: 30 of what?
    #[error("no unit")]
    NoUnit,
    /// The unit is not one of ours.
    #[error("unknown unit {unit:?}")]
    UnknownUnit {
        /// What stood in its place.
        unit: String,
    },
    /// The number does not fit.
    #[error("number too large")]
    TooLarge,
}

/// Reads `"30s"`, `"500ms"`, `"2m"`, `"1h"`, `"1d"`, `"10us"`, `"10ns"`.
///
/// # Errors
///
/// When the text is not digits directly followed by one of the units, or the number does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split_unit(text)?;
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let nanos = DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, nanos)| *nanos)
        .ok_or_else(|| UnitError::UnknownUnit { unit: unit.to_owned() })?;
    number.checked_mul(nanos).map(Duration::from_nanos).ok_or(UnitError::TooLarge)
}

/// Writes a duration in the largest unit that divides it: `"2m"`, `"90s"`, `"0s"`.
///
/// Longer than 584 years, which no key allows, is written as that.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (unit, one) =
        DURATION_UNITS.iter().rev().find(|(_, one)| nanos.is_multiple_of(*one)).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", nanos / one)
}

/// `#[serde(with = "units::duration")]`: a [`Duration`] as its text.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "units::duration_or_absent")]`: a [`Duration`] as its text, and `None` where there is none: the field is
/// left out then.
pub(crate) mod duration_or_absent {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(format_duration).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(deserializer).map(Some)
    }
}

/// `#[serde(with = "units::duration_or_off")]`: `"0s"` in the text is `None` in the program, so that nobody
/// arms a timer of no length for "never".
pub(crate) mod duration_or_off {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration::serialize(&value.unwrap_or(Duration::ZERO), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(deserializer).map(|value| (!value.is_zero()).then_some(value))
    }
}

/// `#[serde(with = "units::text_or_none")]`: `""` in the text is `None` in the program.
pub(crate) mod text_or_none {
    use serde::de::{DeserializeOwned, IntoDeserializer as _};

    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => serializer.serialize_str(""),
            Some(value) => value.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { T::deserialize(text.into_deserializer()).map(Some) }
    }
}

/// Digits, then whatever follows them.
fn split_unit(text: &str) -> Result<(u64, &str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || !unit.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(UnitError::NoNumber);
    }
    number.parse().map(|number| (number, unit)).map_err(|_| UnitError::TooLarge)
}

/// Nanoseconds per unit, in rising order: the formatter takes the last that divides.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Bytes per unit, in rising order. Only powers of 1024: "MB" would be read as either by half of its readers.
const SIZE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_every_unit() {
        let cases = [
            ("0s", 0),
            ("0ms", 0),
            ("10ns", 10),
            ("10us", 10_000),
            ("500ms", 500_000_000),
            ("30s", 30_000_000_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1d", 86_400_000_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn durations_that_are_none() {
        for (text, error) in [
            ("", UnitError::NoNumber),
            ("s", UnitError::NoNumber),
            ("-1s", UnitError::NoNumber),
            ("1.5s", UnitError::NoNumber),
            ("1 s", UnitError::NoNumber),
            ("1m30s", UnitError::NoNumber),
            ("30", UnitError::NoUnit),
            ("1w", UnitError::UnknownUnit { unit: "w".to_owned() }),
            ("1S", UnitError::UnknownUnit { unit: "S".to_owned() }),
            ("99999999999999999999s", UnitError::TooLarge),
            ("18446744073709551615d", UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_the_largest_unit() {
        for (text, expect) in [("120s", "2m"), ("90s", "90s"), ("1000ms", "1s"), ("0h", "0s"), ("24h", "1d")]
        {
            assert_eq!(format_duration(parse_duration(text).unwrap()), expect);
        }
    }

    #[test]
    fn sizes_in_every_unit() {
        for (text, bytes, written) in [
            ("0", 0, "0B"),
            ("1000", 1000, "1000B"),
            ("512B", 512, "512B"),
            ("4KiB", 4096, "4KiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("2TiB", 2 << 40, "2TiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.get(), size.to_string().as_str()), (bytes, written), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_none() {
        for (text, error) in [
            ("", UnitError::NoNumber),
            ("MiB", UnitError::NoNumber),
            ("1.5MiB", UnitError::NoNumber),
            ("1 MiB", UnitError::NoNumber),
            ("1MB", UnitError::UnknownUnit { unit: "MB".to_owned() }),
            ("99999999TiB", UnitError::TooLarge),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }
}
