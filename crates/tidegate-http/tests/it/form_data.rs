//! Forms on cases, on every split of them, against a naive reader and against what a naive writer has written.

use proptest::prelude::*;
use tidegate_http::{FormDataError, FormDataLimits, FormDataParser, FormEvent, FormPart};

use crate::corpus::malformed_forms;

/// A part with its data.
type Parts = Vec<(FormPart, Vec<u8>)>;

fn parser() -> FormDataParser {
    FormDataParser::new(b"x", FormDataLimits::default()).expect("a boundary")
}

#[expect(clippy::panic_in_result_fn, reason = "a test fails by panicking")]
fn run(mut parser: FormDataParser, pieces: &[&[u8]]) -> Result<Parts, FormDataError> {
    let (mut parts, mut part, mut ended) = (Vec::new(), None, false);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let step = parser.step(rest)?;
            assert!(step.consumed > 0 || step.event.is_some(), "it gets on");
            match step.event {
                Some(FormEvent::Part(head)) => assert_eq!(part.replace((head, Vec::new())), None),
                Some(FormEvent::Data(data)) => {
                    assert!(!data.is_empty());
                    part.as_mut().expect("data belongs to a part").1.extend_from_slice(data);
                }
                Some(FormEvent::PartEnd) => parts.push(part.take().expect("a part has begun")),
                Some(FormEvent::End) => assert!(!std::mem::replace(&mut ended, true) && part.is_none()),
                None => {}
            }
            rest = &rest[step.consumed..];
        }
    }
    parser.finish()?;
    assert!(ended && part.is_none());
    Ok(parts)
}

#[track_caller]
#[expect(clippy::panic_in_result_fn, reason = "a test fails by panicking")]
fn run_every_way(input: &[u8]) -> Result<Parts, FormDataError> {
    let whole = run(parser(), &[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(run(parser(), &bytes), whole, "byte by byte");
    // Those of long ones would take long, and have nothing new in their middle.
    let ends = 300.min(input.len());
    for split in (0..=ends).chain(input.len() - ends..=input.len()) {
        assert_eq!(run(parser(), &[&input[..split], &input[split..]]), whole, "split at {split}");
    }
    whole
}

/// A part as a browser writes it, with the boundary before and the line end behind it.
fn written(head: &str, data: &str) -> String {
    format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{data}\r\n")
}

#[track_caller]
fn only(head: &str) -> FormPart {
    let parts = run_every_way((written(head, "") + "--x--\r\n").as_bytes());
    parts.unwrap_or_else(|error| panic!("{head}: {error}")).remove(0).0
}

#[test]
fn data_is_what_stands_between_the_lines_of_boundaries() {
    for data in [
        "",
        "hello",
        "\r\n",
        "\r\n\r\n",
        "\r",
        "\n",
        "--",
        "-",
        "\r\n-",
        "\r\n--",
        "\r\n-x",
        "x",
        "--y",
        "\r\n--y",
        "a--x",
        "a\n--x",
        "a\r--x",
        "\r\r\n--y",
        "\r\n\r\n--",
        "\r\n\r",
        "a\r\n--\r\n--\r\n",
        "\0\u{e4}\u{1f30a}",
        "--\r\n-x-\r\n",
    ] {
        let form = [written("name=a", data), written("name=b", "c"), "--x--\r\n".to_owned()].concat();
        let parts = run_every_way(form.as_bytes()).unwrap_or_else(|error| panic!("{data:?}: {error}"));
        let found: Vec<_> = parts.iter().map(|(part, data)| (part.name(), &data[..])).collect();
        assert_eq!(found, [("a", data.as_bytes()), ("b", b"c")], "{data:?}");
    }
}

#[test]
fn a_form_may_have_no_parts_and_something_around_them() {
    for form in [
        "--x--",
        "--x--\r\n",
        "--x--  \t",
        "\r\n--x--",
        "hello\r\n\r\n--x--\r\nbye\r\n--x\r\n",
        "-\r\n--x-- \r\n\r",
    ] {
        assert_eq!(run_every_way(form.as_bytes()), Ok(vec![]), "{form:?}");
    }
    let padded = "This is the preamble.\r\n--x \t\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--\t\r\nThe epilogue";
    assert_eq!(run_every_way(padded.as_bytes()).map(|parts| parts.len()), Ok(1));
    // A part may have a head and nothing else (`body-part` of RFC 2046, section 5.1.1).
    let bare = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n--x--\r\n";
    assert_eq!(run_every_way(bare.as_bytes()).map(|parts| parts[0].1.len()), Ok(0));
}

#[test]
fn names_are_those_that_were_sent() {
    let cases: [(&str, &str, Option<&str>); 14] = [
        (r#"name="a""#, "a", None),
        ("name=a", "a", None),
        (r#"name="""#, "", None),
        (r#"name="a b;c=d""#, "a b;c=d", None),
        (r#"NAME="a" ; FileName="b""#, "a", Some("b")),
        (r#"filename="b"; name="a""#, "a", Some("b")),
        (r#"name="a"; filename="""#, "a", Some("")),
        (r#"name="a"; filename=b.txt; size=5"#, "a", Some("b.txt")),
        (r#"name="a"; filename="b\"c\\d""#, "a", Some(r#"b"c\d"#)),
        (r#"name="a"; filename="C:\dir\b.txt""#, "a", Some(r"C:\dir\b.txt")),
        (r#"name="a"; filename="b%22c%0D%0A%25""#, "a", Some("b%22c%0D%0A%25")),
        (
            "name=\"a\"; filename=\"Gr\u{fc}\u{df}e \u{1f30a}.txt\"",
            "a",
            Some("Gr\u{fc}\u{df}e \u{1f30a}.txt"),
        ),
        ("name=\"a\tb\"", "a\tb", None),
        (r#"name="a'b"; filename="it's; name=c.txt""#, "a'b", Some("it's; name=c.txt")),
    ];
    for (head, name, file_name) in cases {
        let part = only(head);
        assert_eq!((part.name(), part.file_name(), part.content_type()), (name, file_name, None), "{head}");
    }
}

#[test]
fn other_fields_are_read_or_ignored() {
    let head = "name=a\r\ncontent-type:\ttext/plain; charset=UTF-8 \r\nContent-Transfer-Encoding: BINARY\r\nX-Other:\r\nContent-Length: 99";
    assert_eq!(only(head).content_type(), Some("text/plain; charset=UTF-8"));
    for encoding in ["7bit", "8bit", "binary"] {
        assert_eq!(only(&format!("name=a\r\nContent-Transfer-Encoding: {encoding}")).name(), "a");
    }
}

#[test]
fn a_base_name_is_the_last_component_and_safe() {
    let longest = "x".repeat(255);
    for (file_name, base_name) in [
        ("a.txt", Some("a.txt")),
        ("a b.tar.gz", Some("a b.tar.gz")),
        (" a.txt ", Some("a.txt")),
        ("/etc/passwd", Some("passwd")),
        ("../../a", Some("a")),
        ("C:\\Users\\ada\\a.txt", Some("a.txt")),
        ("..\\../a\\b", Some("b")),
        ("Gr\u{fc}\u{df}e", Some("Gr\u{fc}\u{df}e")),
        (&longest, Some(&longest)),
        (&(longest.clone() + "x"), None),
        ("", None),
        (" ", None),
        (".", None),
        ("..", None),
        (".htaccess", None),
        ("a/", None),
        ("a\\", None),
        ("a/..", None),
        ("a/ .b", None),
        ("a\tb", None),
        ("a\u{85}b", None),
        ("exe.\u{202e}gpj", None),
        ("a\u{200b}b", None),
    ] {
        let part = only(&format!("name=a; filename=\"{}\"", file_name.replace('\\', "\\\\")));
        assert_eq!((part.file_name(), part.base_name()), (Some(file_name), base_name), "{file_name:?}");
    }
    assert_eq!(only("name=a").base_name(), None);
}

#[test]
fn malformed_forms_get_their_status_however_they_arrive() {
    let table = malformed_forms();
    assert!(table.len() >= 85, "{} forms", table.len());
    for entry in &table {
        match run_every_way(&entry.request) {
            Err(error) => assert_eq!(error.status().code(), entry.status, "{}: {error}", entry.why),
            Ok(parts) => panic!("{}: {parts:?} of {}", entry.why, entry.request.escape_ascii()),
        }
    }
    let mut bodies: Vec<_> = table.iter().map(|entry| &entry.request).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), table.len(), "none stands there twice");
}

#[test]
fn what_is_at_a_limit_is_taken() {
    let name = "n".repeat(1024);
    assert_eq!(only(&format!("name={name}; filename={name}")).name(), name);
    let line = "Content-Disposition: form-data; name=a\r\nX: ";
    let head = format!("{line}{}\r\n\r\n", "y".repeat((4 << 10) - line.len() - 4));
    assert_eq!(run_every_way(format!("--x\r\n{head}b\r\n--x--").as_bytes()).map(|parts| parts.len()), Ok(1));
    let around = format!("{}\r\n--x--\r\n{}", "a".repeat(2048), "b".repeat(2048));
    assert_eq!(run_every_way(around.as_bytes()), Ok(vec![]));
    let many = written("name=a", "").repeat(1000) + "--x--\r\n";
    assert_eq!(run(parser(), &[many.as_bytes()]).map(|parts| parts.len()), Ok(1000));
}

#[test]
fn boundaries_are_those_of_the_rfc() {
    let longest = "a".repeat(70);
    let of = |boundary: &str| FormDataParser::new(boundary.as_bytes(), FormDataLimits::default());
    for boundary in ["x", "-", "a b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "'()+_,-./:=?", &longest] {
        let form =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--{boundary}--");
        let parts = run(of(boundary).unwrap(), &[form.as_bytes()]);
        assert_eq!(parts.map(|parts| parts.len()), Ok(1), "{boundary}");
    }
    let longer = longest.clone() + "a";
    for boundary in ["", " ", "a ", "a\tb", "a\r", "\"", "a;b", "a@b", "\u{e4}", "a*b", &longer] {
        assert_eq!(of(boundary).err(), Some(FormDataError::Boundary), "{boundary:?}");
    }
}

/// Data that comes near a boundary.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\r\n--".to_vec()),
        Just(b"--x".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"-".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Reads the data of parts that all have the same head, line by line. `None` for what is no form.
fn naive(body: &[u8], head: &[u8]) -> Option<Vec<Vec<u8>>> {
    // Before each line stands its line end, so that a delimiter is one string.
    let body = [b"\r\n", body].concat();
    let cut = |from: usize| body[from..].windows(5).position(|w| w == b"\r\n--x").map(|at| from + at);
    let (mut at, mut parts) = (cut(0)? + 5, Vec::new());
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            let behind = &rest[2..];
            return (behind.is_empty() || behind.starts_with(b"\r\n")).then_some(parts);
        }
        let start = at + 2 + head.len();
        if !rest.strip_prefix(b"\r\n")?.starts_with(head) {
            return None;
        }
        // The line end of the head may be that of the boundary.
        let end = cut(start - 2)?;
        parts.push(body[start..end.max(start)].to_vec());
        at = end + 5;
    }
}

proptest! {
    #[test]
    fn the_same_is_found_however_it_is_cut(
        pieces in proptest::collection::vec(data(), 0..4),
        cut in 1usize..9,
    ) {
        const HEAD: &[u8] = b"Content-Disposition: form-data; name=a\r\n\r\n";
        let mut form = Vec::new();
        for piece in &pieces {
            form.extend_from_slice(b"--x\r\n");
            form.extend_from_slice(HEAD);
            form.extend_from_slice(piece);
            form.extend_from_slice(b"\r\n");
        }
        form.extend_from_slice(b"--x--");
        let whole = run(parser(), &[&form]);
        let cut: Vec<&[u8]> = form.chunks(cut).collect();
        prop_assert_eq!(&run(parser(), &cut), &whole);
        let found = whole.ok().map(|parts| parts.into_iter().map(|(_, data)| data).collect::<Vec<_>>());
        prop_assert_eq!(&found, &naive(&form, HEAD));
        let is_plain = |piece: &Vec<u8>| {
            let line = [b"\r\n", &piece[..]].concat();
            !line.windows(5).any(|window| window == b"\r\n--x")
        };
        if pieces.iter().all(is_plain) {
            prop_assert_eq!(found, Some(pieces));
        }
    }

    #[test]
    fn whatever_comes_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..9) {
        let form = [b"--x\r\n", &bytes[..]].concat();
        let cut: Vec<&[u8]> = form.chunks(cut).collect();
        prop_assert_eq!(run(parser(), &cut), run(parser(), &[&form]));
    }
}
