//! The chunked decoder on cases, on every split of them, and against a naive encoder.

use proptest::prelude::*;
use tidegate_http::{ChunkedDecoder, HttpError};

/// What a body comes to: its data and how many bytes it took, or the error; `None` while it is not complete.
type Outcome = Result<Option<(Vec<u8>, usize)>, HttpError>;

fn run(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = ChunkedDecoder::new();
    let (mut data, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let step = decoder.step(rest)?;
            data.extend_from_slice(&rest[step.data.clone()]);
            taken += step.consumed;
            if step.done {
                return Ok(Some((data, taken)));
            }
            if step.consumed == rest.len() {
                break;
            }
            rest = &rest[step.consumed..];
        }
    }
    Ok(None)
}

#[track_caller]
#[expect(clippy::panic_in_result_fn, reason = "a test fails by panicking")]
fn run_every_way(input: &[u8]) -> Outcome {
    let whole = run(&[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(run(&bytes), whole, "byte by byte");
    for split in 0..=input.len() {
        assert_eq!(run(&[&input[..split], &input[split..]]), whole, "split at {split}");
    }
    whole
}

#[test]
fn bodies_are_joined_and_end_at_the_right_byte() {
    let cases: [(&str, &str); 7] = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world"),
        ("a\r\n0123456789\r\n000A\r\n0123456789\r\n00\r\n\r\n", "01234567890123456789"),
        ("1;a\r\nx\r\n1 ; a=\"b\"\r\ny\r\n0;z\r\n\r\n", "xy"),
        ("1\r\nx\r\n0\r\nTrailer: a\r\nB:\tc d\r\n\r\n", "x"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    ];
    for (text, data) in cases {
        let with_next = format!("{text}GET / HTTP/1.1\r\n");
        assert_eq!(
            run_every_way(with_next.as_bytes()),
            Ok(Some((data.as_bytes().to_vec(), text.len()))),
            "{text:?}"
        );
        for end in 0..text.len() {
            assert_eq!(run(&[&text.as_bytes()[..end]]), Ok(None), "{text:?} up to {end}");
        }
    }
}

#[test]
fn what_breaks_the_grammar_is_an_error_however_it_arrives() {
    let cases = [
        "\r\n",
        " 5\r\n",
        ";a\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x5\r\n",
        "5\n",
        "5\rh",
        "5 5\r\n",
        "5\t\r\nhello",
        "5;a\n",
        "5;\0\r\n",
        "5\r\nhello0",
        "5\r\nhello\n",
        "5\r\nhello\r0",
        "0\r\nX\n",
        "0\r\n X: folded\r\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nA: b\r\n\tc\r\n",
        "0\r\nA: \x7f",
        "0\r\n:",
        "10000000000000000\r\n",
        "00000000000000005\r\n",
        "fffffffffffffffff\r\n",
    ];
    for text in cases {
        assert_eq!(run_every_way(text.as_bytes()), Err(HttpError::Chunk), "{text:?}");
    }
}

#[test]
fn the_largest_size_does_not_overflow() {
    assert_eq!(run_every_way(b"ffffffffffffffff\r\nabc"), Ok(None));
}

#[test]
fn extensions_and_trailers_have_one_limit_and_many_small_chunks_have_none() {
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(8191));
    assert!(matches!(run(&[extension.as_bytes()]), Ok(Some(_))));
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(8192));
    assert_eq!(run(&[extension.as_bytes()]), Err(HttpError::ChunkOverhead));

    let spread = "1;eeee\r\nx\r\n".repeat(2000);
    assert_eq!(run(&[spread.as_bytes()]), Err(HttpError::ChunkOverhead));

    let trailers = format!("0\r\n{}\r\n", "T: tttttttttttttttt\r\n".repeat(500));
    assert_eq!(run(&[trailers.as_bytes()]), Err(HttpError::ChunkOverhead));

    let small = "1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n";
    assert_eq!(run(&[small.as_bytes()]), Ok(Some((vec![b'x'; 100_000], small.len()))));
}

proptest! {
    #[test]
    fn what_a_naive_encoder_writes_is_read_back(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut encoded = Vec::new();
        for chunk in &chunks {
            encoded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            encoded.extend_from_slice(chunk);
            encoded.extend_from_slice(b"\r\n");
        }
        encoded.extend_from_slice(b"0\r\n\r\n");
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(encoded.len())).collect();
        ends.extend([0, encoded.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &encoded[pair[0]..pair[1]]).collect();
        prop_assert_eq!(run(&pieces), Ok(Some((chunks.concat(), encoded.len()))));
    }

    #[test]
    fn any_bytes_end_in_an_answer(input in proptest::collection::vec(
        prop_oneof![Just(b'0'), Just(b'1'), Just(b'\r'), Just(b'\n'), Just(b';'), any::<u8>()], 0..30,
    )) {
        let _ = run_every_way(&input);
    }
}
