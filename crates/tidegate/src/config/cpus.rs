//! `CpuSet`: processors by number, as `"0"` or `"1-3,5"`.
//!
//! Invariant: it is never empty, in rising order, and every number fits into the kernel's mask. The text is the "list
//! format" of cpuset(7), which /proc and /sys use too. Which processors there are is not known here.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

/// A set of processors.
///
/// # Examples
///
/// ```
/// use tidegate::config::CpuSet;
///
/// let set: CpuSet = "5,1-3".parse()?;
/// assert_eq!(set.cpus(), [1, 2, 3, 5]);
/// assert_eq!(set.to_string(), "1-3,5");
/// # Ok::<(), tidegate::config::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuSet(Vec<u16>);

impl CpuSet {
    /// The set of these processors; `None` when there are none, or a number is not below [`CpuSet::LIMIT`].
    #[must_use]
    pub fn new(cpus: impl IntoIterator<Item = u16>) -> Option<Self> {
        let mut cpus: Vec<u16> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        let is_set = cpus.last().is_some_and(|last| *last < Self::LIMIT);
        is_set.then_some(Self(cpus))
    }

    /// The numbers, in rising order.
    #[must_use]
    pub fn cpus(&self) -> &[u16] {
        &self.0
    }

    /// Every number is below it.
    pub const LIMIT: u16 = tidegate_sys::thread::MAX_CPUS;
}

impl FromStr for CpuSet {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = |text: &str| -> Result<u16, Invalid> {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u16>().ok().filter(|_| is_number).ok_or(Invalid::new(NO_LIST))?;
            if number < Self::LIMIT { Ok(number) } else { Err(Invalid::new("a processor number above 1023")) }
        };
        let mut cpus: Vec<u16> = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(Invalid::new("a range that ends before it begins"));
            }
            cpus.extend(first..=last);
            if cpus.len() > MAX_NAMED {
                return Err(Invalid::new("too many processors"));
            }
        }
        Self::new(cpus).ok_or(Invalid::new(NO_LIST))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.0.chunk_by(|a, b| a + 1 == *b);
        for (idx, range) in ranges.enumerate() {
            let comma = if idx == 0 { "" } else { "," };
            match range {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                single => write!(f, "{comma}{}", single[0])?,
            }
        }
        Ok(())
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const NO_LIST: &str = "not a list of processors";
/// What a text may name, repetitions included.
const MAX_NAMED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, cpus: &[u16], canonical: &str) {
        let set: CpuSet = text.parse().unwrap();
        assert_eq!((set.cpus(), set.to_string().as_str()), (cpus, canonical));
        assert_eq!(canonical.parse(), Ok(set));
    }

    #[test]
    fn lists_are_sorted_and_joined() {
        check("0", &[0], "0");
        check("3,1-2,2,7", &[1, 2, 3, 7], "1-3,7");
        check("0-1", &[0, 1], "0-1");
        check("1023", &[1023], "1023");
        check("007", &[7], "7");
    }

    #[test]
    fn what_is_no_list() {
        for text in
            ["", ",", "1,", "-1", "1-", "3-1", "1024", "0-1024", "a", "+1", " 1", "0x1", "99999", "1-2-3"]
        {
            assert!(text.parse::<CpuSet>().is_err(), "{text}");
        }
        assert!(["0-1023"; 10].join(",").parse::<CpuSet>().is_err());
        assert_eq!(CpuSet::new([]), None);
        assert_eq!(CpuSet::new([0, CpuSet::LIMIT]), None);
    }
}
