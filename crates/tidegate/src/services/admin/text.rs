//! Numbers and times as people read them on the admin page.
//!
//! Invariant: every text is short and of one line, whatever the number.

/// A count, with a comma behind every third digit from the right.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of bytes, by powers of ten.
pub(super) fn bytes(value: u64) -> String {
    scaled(value, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// A short time, given in nanoseconds.
pub(super) fn duration(ns: u64) -> String {
    scaled(ns, &["ns", "µs", "ms", "s"])
}

/// A part of a whole, given in thousandths.
pub(super) fn percent(permille: u64) -> String {
    match permille {
        0 => "0\u{a0}%".to_owned(),
        1..100 => format!("{}.{}\u{a0}%", permille / 10, permille % 10),
        _ => format!("{}\u{a0}%", (permille + 5) / 10),
    }
}

/// A long time, given in seconds.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{} d {hours} h", count(days)),
    }
}

/// The same without a tenth that is none, for an axis.
pub(super) fn round(text: &str) -> String {
    text.replace(".0\u{a0}", "\u{a0}")
}

/// In the last of the units of which there is a whole one; each is a thousand of the one before.
fn scaled(value: u64, units: &[&str]) -> String {
    let mut one = 1u128;
    let mut units = units.iter().peekable();
    while let Some(unit) = units.next() {
        let value = u128::from(value);
        if value >= one * 1000 && units.peek().is_some() {
            one *= 1000;
            continue;
        }
        let (tenths, nearest) = ((value * 10 + one / 2) / one, (value + one / 2) / one);
        // A blank at which no line is broken.
        return match u64::try_from(nearest).unwrap_or(u64::MAX) {
            0..100 if one > 1 => format!("{}.{}\u{a0}{unit}", tenths / 10, tenths % 10),
            nearest => format!("{}\u{a0}{unit}", count(nearest)),
        };
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        text.replace('\u{a0}', " ")
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 999, 1000, 1_250_000, u64::MAX].map(|value| plain(&bytes(value)));
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.3 MB", "18,447 PB"]);
        let times = [0, 999, 4_000, 123_456, 8_388_608_000, 200_000_000_000].map(|ns| plain(&duration(ns)));
        assert_eq!(times, ["0 ns", "999 ns", "4.0 µs", "123 µs", "8.4 s", "200 s"]);
        assert_eq!(
            [4_000, 4_096, 40_000_000].map(|ns| plain(&round(&duration(ns)))),
            ["4 µs", "4.1 µs", "40 ms"]
        );
        let parts = [0, 1, 45, 100, 999, 1000].map(|permille| plain(&percent(permille)));
        assert_eq!(parts, ["0 %", "0.1 %", "4.5 %", "10 %", "100 %", "100 %"]);
        let ages = [0, 59, 61, 3600, 90_000, u64::MAX].map(age);
        assert_eq!(ages[..5], ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
        assert!(ages[5].len() < 30);
    }
}
