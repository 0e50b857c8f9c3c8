//! Forms with files on whatever comes: the parser always gets on, finds the same however the bytes are cut, and finds no data
//! but what a reader finds that knows only lines and boundaries.
//!
//! The first byte of the input says how the rest is cut; the rest is the body, with the boundary `x`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{FormDataError, FormDataLimits, FormDataParser, FormEvent, FormPart};

/// Small, so that they are met.
const LIMITS: FormDataLimits =
    FormDataLimits { max_parts: 4, max_head_bytes: 256, max_name_bytes: 32, max_overhead_bytes: 64 };

type Parts = Vec<(FormPart, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let whole = run(input, input.len());
    assert_eq!(run(input, 1), whole);
    assert_eq!(run(input, usize::from(cut) + 1), whole);
    let Ok(parts) = whole else { return };
    assert_eq!(parts.iter().map(|(_, data)| data.as_slice()).collect::<Vec<_>>(), naive(input));
    for (part, _) in &parts {
        let texts = [Some(part.name()), part.file_name()];
        for text in texts.into_iter().flatten() {
            assert!(
                text.len() <= LIMITS.max_name_bytes
                    && text.bytes().all(|b| b >= b' ' && b != 0x7f || b == b'\t')
            );
        }
        if let Some(name) = part.base_name() {
            assert!(!name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']));
        }
    }
});

fn run(input: &[u8], cut: usize) -> Result<Parts, FormDataError> {
    let mut parser = FormDataParser::new(b"x", LIMITS).expect("a boundary");
    let (mut parts, mut current) = (Vec::new(), None);
    for piece in input.chunks(cut.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let step = parser.step(rest)?;
            assert!(step.consumed > 0 || step.event.is_some());
            match step.event {
                Some(FormEvent::Part(part)) => assert_eq!(current.replace((part, Vec::new())), None),
                Some(FormEvent::Data(data)) => {
                    assert!(!data.is_empty());
                    current.as_mut().expect("data belongs to a part").1.extend_from_slice(data);
                }
                Some(FormEvent::PartEnd) => parts.push(current.take().expect("a part has begun")),
                Some(FormEvent::End) => assert_eq!(current, None),
                None => {}
            }
            rest = &rest[step.consumed..];
        }
    }
    parser.finish()?;
    Ok(parts)
}

/// The data of the parts of a valid form. Before it stands a line end, so that each delimiter is one string.
fn naive(body: &[u8]) -> Vec<Vec<u8>> {
    let body = [b"\r\n", body].concat();
    let find = |from: usize, what: &[u8]| {
        from + body[from..].windows(what.len()).position(|w| w == what).expect("it is valid")
    };
    let (mut at, mut parts) = (find(0, b"\r\n--x") + 5, Vec::new());
    while !body[at..].starts_with(b"--") {
        // The empty line behind the head may be that before a boundary.
        let data = find(at, b"\r\n\r\n") + 4;
        let end = find(data - 2, b"\r\n--x");
        parts.push(body[data..end.max(data)].to_vec());
        at = end + 5;
    }
    parts
}
