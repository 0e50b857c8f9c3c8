//! The `Date` of answers: written once a second by each thread, and copied into every answer.
//!
//! Invariant: the text belongs to the second that was asked for.

use std::cell::Cell;

use tidegate_http::{HTTP_DATE_LEN, format_http_date};

type Text = [u8; HTTP_DATE_LEN];

thread_local! {
    /// No answer is written in the last second that there is.
    static SECOND: Cell<u64> = const { Cell::new(u64::MAX) };
    static TEXT: Cell<Text> = const { Cell::new([0; HTTP_DATE_LEN]) };
}

/// The text of a second since 1970.
#[inline]
pub(crate) fn http_date(second: u64) -> Text {
    if SECOND.get() != second {
        write(second);
    }
    TEXT.get()
}

#[cold]
fn write(second: u64) {
    TEXT.set(format_http_date(second));
    SECOND.set(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_text() {
        for second in [0, 0, 784_111_777, 784_111_778, 784_111_777] {
            assert_eq!(http_date(second), format_http_date(second), "{second}");
        }
    }
}
