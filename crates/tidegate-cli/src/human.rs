//! Sizes and times for people: short, and rounded down.
//!
//! What a program is to read is printed as JSON, with the whole number.

use std::time::Duration;

/// `512B`, `1.5KiB`, `23MiB`: one digit behind the point below ten of a unit.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count}B");
    }
    let mut unit = 0;
    let mut one = 1024;
    while unit + 1 < UNITS.len() && count / one >= 1024 {
        unit += 1;
        one *= 1024;
    }
    let (whole, rest) = (count / one, count % one);
    match whole {
        0..10 => format!("{whole}.{}{}", rest / (one / 1024) * 10 / 1024, UNITS[unit]),
        _ => format!("{whole}{}", UNITS[unit]),
    }
}

/// `850ms`, `42s`, `3m12s`, `2h05m`, `3d04h`: the two largest units.
pub(crate) fn time(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0 => format!("{}ms", time.subsec_millis()),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (10 * 1024 - 1, "9.9KiB"),
            (10 * 1024, "10KiB"),
            ((1 << 20) - 1, "1023KiB"),
            (1 << 20, "1.0MiB"),
            (u64::MAX, "15EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_have_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1s"),
            (59_999, "59s"),
            (60_000, "1m00s"),
            (3_599_999, "59m59s"),
            (7_500_000, "2h05m"),
            (86_400_000, "1d00h"),
            (273_600_000, "3d04h"),
        ] {
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
    }
}
