//! Dates as HTTP writes them (RFC 9110, section 5.6.7), from and to whole seconds since 1970.
//!
//! Invariant: no clock is read here; the caller brings the time. Leap seconds do not exist, as in Unix time.

/// The length of a date as [`format_http_date`] writes it.
pub const HTTP_DATE_LEN: usize = 29;

const DAY_NAMES: &[u8; 21] = b"ThuFriSatSunMonTueWed";
const MONTH_NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
const SECONDS_PER_DAY: u64 = 86_400;
/// The last second of the year 9999; the format has four digits.
const MAX_SECONDS: u64 = 253_402_300_799;

/// Writes `seconds` since 1970 as an IMF-fixdate. Seconds after the year 9999 are written as its last.
///
/// ```
/// assert_eq!(&tidegate_http::format_http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
/// ```
#[must_use]
pub fn format_http_date(seconds: u64) -> [u8; HTTP_DATE_LEN] {
    let seconds = seconds.min(MAX_SECONDS);
    let (days, time) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(name_at(DAY_NAMES, days % 7));
    put_two_digits(&mut out, 5, day);
    out[8..11].copy_from_slice(name_at(MONTH_NAMES, month - 1));
    put_two_digits(&mut out, 12, year / 100);
    put_two_digits(&mut out, 14, year % 100);
    put_two_digits(&mut out, 17, time / 3600);
    put_two_digits(&mut out, 20, time / 60 % 60);
    put_two_digits(&mut out, 23, time % 60);
    out
}

/// Reads a date in any of the three forms: IMF-fixdate, the obsolete RFC 850 form, and that of `asctime`.
///
/// Answers the seconds since 1970, or `None` for what is no date or lies before 1970. The name of the day is not compared
/// with the date. Two digits of a year below 70 count from 2000, others from 1900.
#[must_use]
pub fn parse_http_date(text: &[u8]) -> Option<u64> {
    match text {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [_, _, _, b',', b' ', d1, d2, b' ', rest @ ..] if text.len() == HTTP_DATE_LEN => {
            is_day_name(&text[..3]).then_some(())?;
            let (month, rest) = month(rest)?;
            let (b' ', year, b' ', time) =
                (*rest.first()?, digits(rest.get(1..5)?)?, *rest.get(5)?, &rest[6..])
            else {
                return None;
            };
            seconds_of(year, month, digits(&[*d1, *d2])?, time.strip_suffix(b" GMT")?)
        }
        // Sun Nov  6 08:49:37 1994
        [_, _, _, b' ', rest @ ..] if text.len() == 24 => {
            is_day_name(&text[..3]).then_some(())?;
            let (month, rest) = month(rest)?;
            let [b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4] = rest else { return None };
            let tens = if *d1 == b' ' { b'0' } else { *d1 };
            seconds_of(digits(&[*y1, *y2, *y3, *y4])?, month, digits(&[tens, *d2])?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        _ => {
            let comma = text.iter().position(|&b| b == b',')?;
            is_long_day_name(&text[..comma]).then_some(())?;
            let [b' ', d1, d2, b'-', rest @ ..] = &text[comma + 1..] else { return None };
            let (month, rest) = month(rest)?;
            let [b'-', y1, y2, b' ', time @ ..] = rest else { return None };
            let year = digits(&[*y1, *y2])?;
            let year = if year < 70 { 2000 + year } else { 1900 + year };
            seconds_of(year, month, digits(&[*d1, *d2])?, time.strip_suffix(b" GMT")?)
        }
    }
}

fn name_at(names: &[u8], index: u64) -> &[u8] {
    // The index is a day of the week or a month, so it is small.
    let start = usize::try_from(index).unwrap_or(0) * 3;
    &names[start..start + 3]
}

fn put_two_digits(out: &mut [u8; HTTP_DATE_LEN], at: usize, number: u64) {
    let digit = |n: u64| b"0123456789"[usize::try_from(n % 10).unwrap_or(0)];
    out[at] = digit(number / 10);
    out[at + 1] = digit(number);
}

fn is_day_name(name: &[u8]) -> bool {
    DAY_NAMES.chunks_exact(3).any(|known| known == name)
}

fn is_long_day_name(name: &[u8]) -> bool {
    let known: [&[u8]; 7] =
        [b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday"];
    known.contains(&name)
}

/// The month (1 to 12) that `text` begins with, and what follows.
fn month(text: &[u8]) -> Option<(u64, &[u8])> {
    let (name, rest) = text.split_at_checked(3)?;
    let index = MONTH_NAMES.chunks_exact(3).position(|known| known == name)?;
    Some((index as u64 + 1, rest))
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// `time` is `hh:mm:ss`. A leap second counts as the second before it.
fn seconds_of(year: u64, month: u64, day: u64, time: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    if year < 1970 || day == 0 || day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second.min(59))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Leap days in the years 1 to `year`.
const fn leap_days(year: u64) -> u64 {
    year / 4 - year / 100 + year / 400
}

/// Days from 1 January 1970 to the start of `year`, which is 1970 or later.
const fn days_before_year(year: u64) -> u64 {
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let before_month: u64 = (1..month).map(|m| days_in_month(year, m)).sum();
    days_before_year(year) + before_month + day - 1
}

/// Year, month (from 1) and day (from 1).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // 365 days a year is too short, so the guess is at most a few years late.
    let mut year = 1970 + days / 365;
    while days_before_year(year) > days {
        year -= 1;
    }
    let mut left = days - days_before_year(year);
    let mut month = 1;
    while left >= days_in_month(year, month) {
        left -= days_in_month(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_three_forms_of_the_rfc_are_one_time() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        let bad = [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Jan 1994 08:49:37 GMT",
            "Sun, 29 Feb 2100 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Someday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 06 08:49:37 94",
        ];
        for text in bad {
            assert_eq!(parse_http_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_year_has_four_digits_for_ever() {
        assert_eq!(&format_http_date(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&format_http_date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }

    proptest! {
        #[test]
        fn formatting_agrees_with_httpdate_and_is_read_back(seconds in 0..=MAX_SECONDS) {
            let ours = format_http_date(seconds);
            let theirs = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(std::str::from_utf8(&ours).unwrap(), theirs);
            prop_assert_eq!(parse_http_date(&ours), Some(seconds));
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_http_date(&text);
        }

        #[test]
        fn no_changed_date_panics(at in 0..29usize, byte in any::<u8>(), form in 0..3usize) {
            let forms = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
            let mut text = forms[form].as_bytes().to_vec();
            let at = at % text.len();
            text[at] = byte;
            let _ = parse_http_date(&text);
            text.truncate(at);
            let _ = parse_http_date(&text);
        }
    }
}
