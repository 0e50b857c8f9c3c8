//! The tables of malformed requests and forms, read from `malformed.txt` and `malformed_forms.txt`. The tests of the web
//! service use this file too.

/// A request that is to be refused.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) status: u16,
    /// What is wrong, with the line of the table.
    pub(crate) why: String,
    pub(crate) request: Vec<u8>,
}

/// All of them, in the order of the table.
pub(crate) fn malformed() -> Vec<Malformed> {
    table(include_str!("malformed.txt"))
}

/// Bodies that are `multipart/form-data` with the boundary `x`, and are to be refused.
pub(crate) fn malformed_forms() -> Vec<Malformed> {
    table(include_str!("malformed_forms.txt"))
}

fn table(text: &str) -> Vec<Malformed> {
    let entries = text.lines().enumerate();
    entries
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            let mut parts = line.splitn(3, " | ");
            let (Some(status), Some(why), Some(request)) = (parts.next(), parts.next(), parts.next()) else {
                panic!("line {}: no `status | what is wrong | request`", index + 1);
            };
            let status = status.parse().unwrap_or_else(|_| panic!("line {}: no status", index + 1));
            Malformed { status, why: format!("line {}: {why}", index + 1), request: expand(request) }
        })
        .collect()
}

/// `{TEXT*N}` is N times TEXT.
fn expand(text: &str) -> Vec<u8> {
    let Some((before, rest)) = text.split_once('{') else { return unescape(text) };
    let Some((repeated, after)) = rest.split_once('}') else { panic!("open brace: {text}") };
    let Some((piece, count)) = repeated.rsplit_once('*') else { panic!("no count: {text}") };
    let count = count.parse().unwrap_or_else(|_| panic!("no count: {text}"));
    [unescape(before), unescape(piece).repeat(count), expand(after)].concat()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("no number: {text}"))
            }
            other => panic!("unknown escape {other:?}: {text}"),
        });
    }
    out
}
