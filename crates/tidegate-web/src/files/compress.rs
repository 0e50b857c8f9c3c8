//! Content codings made by the server itself: Brotli and gzip of whole files, for files that have been asked for.
//!
//! Invariant: what comes out is smaller than what went in, or there is nothing. The result is kept, so the time is spent
//! once for each state of a file and the levels are chosen for size: at these a core does about 30 MB/s.
//!
//! There is no zstd here: the clients that take it take Brotli, which is smaller for text, and its library would bring a
//! C compiler into the build. Ready `.zst` files are served all the same.

use std::io::{self, Write};

use flate2::write::GzEncoder;

/// A coding that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Brotli,
    Gzip,
}

/// Below this a head is longer than what could be saved.
pub(crate) const MIN_BYTES: u64 = 256;
/// Above this a file is left as it is: ready files beside it are the answer there.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// The level beyond which Brotli's time grows faster than its gain.
const BROTLI_QUALITY: i32 = 5;
/// A window of 1 MiB: what a client has to keep to decode it.
const BROTLI_WINDOW_BITS: i32 = 20;
const GZIP_LEVEL: u32 = 6;

/// The content in this coding; `None` when that would not be smaller by at least one part in 16.
pub(crate) fn compress(method: Method, content: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let out = Vec::with_capacity(content.len() / 2);
    let out = match method {
        Method::Brotli => brotli(content, out)?,
        Method::Gzip => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
            encoder.write_all(content)?;
            encoder.finish()?
        }
    };
    Ok((out.len() < content.len() - content.len() / 16).then_some(out))
}

fn brotli(mut content: &[u8], mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW_BITS,
        size_hint: content.len(),
        ..Default::default()
    };
    brotli::BrotliCompress(&mut content, &mut out, &params)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn text(len: usize) -> Vec<u8> {
        b"the tide comes in, the tide goes out; ".iter().copied().cycle().take(len).collect()
    }

    #[test]
    fn what_was_compressed_can_be_read_again() {
        for len in [256, 1000, 100_000, 3 << 20] {
            let content = text(len);
            let gzip = compress(Method::Gzip, &content).unwrap().unwrap();
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
            assert!(back == content, "gzip of {len}");
            let brotli = compress(Method::Brotli, &content).unwrap().unwrap();
            back.clear();
            brotli::Decompressor::new(&brotli[..], 4096).read_to_end(&mut back).unwrap();
            assert!(back == content, "br of {len}");
            assert!(gzip.len() < len / 2 && brotli.len() < len / 2);
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_left_as_it_is() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .take(4096)
        .collect();
        for method in [Method::Brotli, Method::Gzip] {
            assert_eq!(compress(method, &noise).unwrap(), None);
            assert_eq!(compress(method, b"").unwrap(), None);
        }
    }
}
