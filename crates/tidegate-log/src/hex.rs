//! The hex dump of a buffer, as a field of an event.
//!
//! At most so many bytes are shown as the caller says; the dump costs nothing when the event is disabled, since it is made
//! only when it is displayed.

use std::fmt;

/// How many bytes [`hex`] shows.
pub const HEX_DEFAULT_BYTES: usize = 256;

/// Shows up to [`HEX_DEFAULT_BYTES`] of a buffer in hex and ASCII.
///
/// ```
/// use tidegate_log::hex;
/// let frame = [0u8, 8, 0, 0, 0, 0, 0, 0];
/// tracing::debug!(dump = %hex(&frame), "frame received");
/// assert_eq!(
///     hex(&frame).to_string(),
///     "0000  00 08 00 00 00 00 00 00                           |........|"
/// );
/// ```
#[must_use]
pub const fn hex(bytes: &[u8]) -> Hex<'_> {
    hex_up_to(bytes, HEX_DEFAULT_BYTES)
}

/// Shows up to `max_bytes` of a buffer in hex and ASCII, and how many more there are.
#[must_use]
pub const fn hex_up_to(bytes: &[u8], max_bytes: usize) -> Hex<'_> {
    Hex { bytes, max_bytes }
}

/// A buffer that is displayed as a hex dump, 16 bytes a line, lines separated by newlines.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a> {
    bytes: &'a [u8],
    max_bytes: usize,
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.bytes.len().min(self.max_bytes);
        for (index, row) in self.bytes[..shown].chunks(ROW_BYTES).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{:04x} ", index * ROW_BYTES)?;
            for column in 0..ROW_BYTES {
                if column == ROW_BYTES / 2 {
                    f.write_str(" ")?;
                }
                match row.get(column) {
                    Some(byte) => write!(f, " {byte:02x}")?,
                    None => f.write_str("   ")?,
                }
            }
            f.write_str("  |")?;
            for &byte in row {
                let shown = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
                write!(f, "{shown}")?;
            }
            f.write_str("|")?;
        }
        match self.bytes.len() - shown {
            0 => Ok(()),
            more if shown == 0 => write!(f, "… {more} bytes"),
            more => write!(f, "\n… {more} more bytes"),
        }
    }
}

const ROW_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_offset_hex_and_text() {
        let bytes: Vec<u8> = (b'A'..=b'R').collect();
        assert_eq!(
            hex(&bytes).to_string(),
            "0000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCDEFGHIJKLMNOP|\n\
             0010  51 52                                             |QR|"
        );
        assert_eq!(hex(&[]).to_string(), "");
    }

    #[test]
    fn a_long_buffer_is_cut_with_its_count() {
        let text = hex(&[0; 1000]).to_string();
        assert_eq!(text.lines().count(), HEX_DEFAULT_BYTES / 16 + 1);
        assert!(text.ends_with("\n… 744 more bytes"));
        assert_eq!(hex_up_to(&[1, 2], 0).to_string(), "… 2 bytes");
    }
}
