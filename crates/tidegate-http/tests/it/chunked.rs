//! The chunked decoder on cases, on every split of them, and against a naive encoder.

use proptest::prelude::*;
use tidegate_http::{ChunkedDecoder, HttpError, is_field_value, is_token};

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
    let cases: [(&str, &str); 8] = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world"),
        ("a\r\n0123456789\r\n000A\r\n0123456789\r\n00\r\n\r\n", "01234567890123456789"),
        ("1;a\r\nx\r\n1 ; a=\"b\"\r\ny\r\n0;z\r\n\r\n", "xy"),
        ("1 ; a = \"b\\\"c;\u{e4}\" ;d=e\t;f;g=\"\"\r\ny\r\n0;z\r\n\r\n", "y"),
        ("1\r\nx\r\n0\r\nTrailer: a\r\nB:\tc d\r\nC:\r\n\r\n", "x"),
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
        "5;\r\n",
        "5;;a\r\n",
        "5;a;\r\n",
        "5;=a\r\n",
        "5;a=\r\n",
        "5;a==b\r\n",
        "5;a b\r\n",
        "5;a \r\n",
        "5;a=b \r\n",
        "5;a=b c\r\n",
        "5;a=\"b\r\n",
        "5;a=\"b\"c\r\n",
        "5;a=\"b\" \r\n",
        "5;a=\"\\\r\n",
        "5;a=\"\0\"\r\n",
        "5;a:b\r\n",
        "5;(a)\r\n",
        "5;\0\r\n",
        "5\r\nhello0",
        "5\r\nhello\n",
        "5\r\nhello\r0",
        "0\r\nX\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX Y: a\r\n\r\n",
        "0\r\n\u{e4}: a\r\n\r\n",
        "0\r\nX: a\nY: b\r\n\r\n",
        "0\r\nX: a\rY: b\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n",
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
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(4095));
    assert!(matches!(run(&[extension.as_bytes()]), Ok(Some(_))));
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(4096));
    assert_eq!(run(&[extension.as_bytes()]), Err(HttpError::ChunkOverhead));

    let spread = "1;eeee\r\nx\r\n".repeat(2000);
    assert_eq!(run(&[spread.as_bytes()]), Err(HttpError::ChunkOverhead));

    let trailers = format!("0\r\n{}\r\n", "T: tttttttttttttttt\r\n".repeat(500));
    assert_eq!(run(&[trailers.as_bytes()]), Err(HttpError::ChunkOverhead));

    let small = "1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n";
    assert_eq!(run(&[small.as_bytes()]), Ok(Some((vec![b'x'; 100_000], small.len()))));
}

/// The grammar of RFC 9112, section 7.1, by cutting a whole body into lines; the data, when it is valid.
fn naive(body: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut data) = (body, Vec::new());
    loop {
        let line = take_line(&mut rest)?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = str::from_utf8(&line[..digits]).ok().filter(|digits| digits.len() <= 16)?;
        let size = u64::from_str_radix(size, 16).ok()?;
        if !are_extensions(&line[digits..]) {
            return None;
        }
        if size == 0 {
            break;
        }
        let (chunk, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        data.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
    loop {
        let line = take_line(&mut rest)?;
        if line.is_empty() {
            return rest.is_empty().then_some(data);
        }
        let colon = line.iter().position(|&b| b == b':')?;
        if take_token(&mut &line[..colon]) != colon || !is_field_value(&line[colon + 1..]) || colon == 0 {
            return None;
        }
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|w| w == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

/// How many bytes of a token are taken.
fn take_token(rest: &mut &[u8]) -> usize {
    let len = rest.iter().take_while(|&&b| is_token(&[b])).count();
    *rest = &rest[len..];
    len
}

fn skip_blanks(rest: &mut &[u8]) {
    while let [b' ' | b'\t', after @ ..] = rest {
        *rest = after;
    }
}

fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        skip_blanks(&mut rest);
        let Some(after) = rest.strip_prefix(b";") else { return false };
        rest = after;
        skip_blanks(&mut rest);
        if take_token(&mut rest) == 0 {
            return false;
        }
        let mut value = rest;
        skip_blanks(&mut value);
        let Some(after) = value.strip_prefix(b"=") else { continue };
        rest = after;
        skip_blanks(&mut rest);
        if !take_quoted(&mut rest) && take_token(&mut rest) == 0 {
            return false;
        }
    }
    true
}

fn take_quoted(rest: &mut &[u8]) -> bool {
    let [b'"', inner @ ..] = rest else { return false };
    let mut at = 0;
    while let Some(&byte) = inner.get(at) {
        match byte {
            b'"' => {
                *rest = &inner[at + 1..];
                return is_field_value(&inner[..at]);
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    false
}

#[test]
fn every_byte_at_every_place_is_judged_as_by_the_naive_grammar() {
    let bases = [
        "3\r\nabc\r\n0\r\n\r\n",
        "1 ; a = \"b\\\"c\" ;d=e\t;f;g=\"\"\r\ny\r\n0;z\r\n\r\n",
        "0\r\nName: a\tb\r\nC:\r\n\r\n",
        "000000000000000a;x\r\n0123456789\r\n00\r\n\r\n",
    ];
    let check = |body: &[u8]| {
        let ours = match run(&[body]) {
            // What follows the body is not the decoder's.
            Ok(Some((data, taken))) if taken == body.len() => Some(data),
            _ => None,
        };
        assert_eq!(ours, naive(body), "{}", body.escape_ascii());
    };
    for base in bases.map(str::as_bytes) {
        check(base);
        for at in 0..base.len() {
            check(&[&base[..at], &base[at + 1..]].concat());
            for byte in 0..=255 {
                check(&[&base[..at], &[byte], &base[at + 1..]].concat());
                check(&[&base[..at], &[byte], &base[at..]].concat());
            }
        }
    }
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
