//! Texts in fields of a fixed width, as C programs write them: `char username[56]`.
//!
//! A text ends at its first NUL or fills the field; what stands after the NUL is not looked at, since clients that copy with
//! `strcpy` leave there what was in memory. We write zeros there.

/// Bytes of the field for a user's name.
pub const USERNAME_FIELD: usize = 56;

/// Bytes of the field for a password.
pub const PASSWORD_FIELD: usize = 40;

/// A text does not fit into its field, or contains a NUL, at which the reader would cut it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a text for a field of {width} bytes has {found} bytes or contains a NUL")]
pub struct BadText {
    /// The field's width in bytes.
    pub width: usize,
    /// The text's length in bytes.
    pub found: usize,
}

/// The text in `field`.
pub(crate) fn read(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Writes `text` and zeros into `field`.
pub(crate) fn write(text: &[u8], field: &mut [u8]) -> Result<(), BadText> {
    if text.len() > field.len() || text.contains(&0) {
        return Err(BadText { width: field.len(), found: text.len() });
    }
    let (head, tail) = field.split_at_mut(text.len());
    head.copy_from_slice(text);
    tail.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_fill_its_field() {
        let mut field = [9; 4];
        write(b"abcd", &mut field).unwrap();
        assert_eq!(read(&field), b"abcd");
        write(b"", &mut field).unwrap();
        assert_eq!(field, [0; 4]);
        assert_eq!(read(&field), b"");
    }

    #[test]
    fn what_stands_after_the_nul_is_not_read() {
        assert_eq!(read(b"ab\0cd\0"), b"ab");
    }

    #[test]
    fn a_text_that_would_come_out_changed_is_refused() {
        let mut field = [9; 4];
        assert_eq!(write(b"abcde", &mut field), Err(BadText { width: 4, found: 5 }));
        assert_eq!(write(b"a\0b", &mut field), Err(BadText { width: 4, found: 3 }));
        assert_eq!(field, [9; 4]);
    }
}
