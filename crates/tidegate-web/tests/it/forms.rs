//! Forms with files, in memory and to a disk: what is read, what is refused, and that nothing is left of what was.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tidegate_engine::{ListenerWord, Reason};
use tidegate_web::{
    FormData, FormDataLimits, FormUploads, Request, Response, Status, UploadDir, UploadedForm, Web, get,
    post, sink,
};

use crate::client::{Client, Server, eventually, get as get_text, request};
use crate::corpus::malformed_forms;
use crate::uploads::{count, on_small_disk};

const TYPE: &str = "Content-Type: multipart/form-data; boundary=x\r\n";

/// Says what is in a form.
fn tell(mut form: FormData) -> String {
    let fields = form.fields().iter().map(|field| {
        let part = field.part();
        format!("{}/{:?}/{:?}/{}", part.name(), part.base_name(), field.text(), field.data().len())
    });
    let named = format!("text {:?}, file {}", form.text("a"), form.file("a").is_some());
    let mut said: Vec<_> = fields.chain([named]).collect();
    let count = form.fields().len();
    if let Some(file) = form.take_file("a") {
        said.push(format!("taken {} of {count}", file.into_data().len()));
        assert!(form.file("a").is_none() && form.into_fields().len() == count - 1);
    }
    said.join("; ")
}

/// Stores files as their form says, and says what was stored.
fn store(mut form: UploadedForm) -> Result<String, Response> {
    let mut said = format!("{:?}", form.texts.text("note").unwrap_or_default());
    for file in &mut form.files {
        let name = file.part().base_name().unwrap_or("unnamed").to_owned();
        let name = match file.save(&name) {
            Err(taken) if taken.status() == Status::CONFLICT => {
                let other = format!("{name}.1");
                file.save(&other)?;
                other
            }
            saved => saved.map(|_| name)?,
        };
        said += &format!(" {name}:{}:{}", file.len(), file.is_empty());
    }
    Ok(said)
}

fn server_of(dir: &Path, forms: impl FnOnce(FormUploads) -> FormUploads) -> Server {
    let forms = forms(UploadDir::open(dir).expect("the directory is there").forms());
    let in_loop = forms.clone();
    let on_pool = sink(move |request: &Request<'_>| forms.begin(request, store));
    let in_loop = sink(move |request: &Request<'_>| in_loop.begin(request, store));
    Server::start(
        Web::builder()
            .max_collected_bytes(100 << 10)
            .route("/memory", post(tell).max_body_bytes(64 << 10))
            .route("/disk", post(on_pool).max_body_bytes(64 << 20).blocking())
            .route("/loop", post(in_loop))
            .route("/alive", get(|| "alive")),
    )
}

fn server(dir: &Path) -> Server {
    server_of(dir, |forms| forms)
}

fn head(path: &str, len: usize) -> String {
    request("POST", path, &format!("{TYPE}Content-Length: {len}\r\n"))
}

fn posted(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [head(path, body.len()).as_bytes(), body].concat()
}

/// A part, with the boundary before and the line end behind it.
fn part(head: &str, data: &[u8]) -> Vec<u8> {
    [format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(), data, b"\r\n"].concat()
}

/// What a part says of itself, and its data.
type Named<'a> = (&'a str, &'a [u8]);

fn form(parts: &[Named<'_>]) -> Vec<u8> {
    let parts = parts.iter().map(|(head, data)| part(head, data));
    parts.chain([b"--x--\r\n".to_vec()]).collect::<Vec<_>>().concat()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the directory is there");
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// As a browser sends a form with two fields for files, for one of which none was chosen.
fn example() -> Vec<u8> {
    form(&[
        ("name=\"note\"", "Ebbe & Flut, größer\r\n".as_bytes()),
        ("name=\"a\"; filename=\"\"\r\nContent-Type: application/octet-stream", b""),
        (
            "name=\"a\"; filename=\"C:\\Bilder\\Meer.png\"\r\nContent-Type: image/png",
            b"\x89PNG\r\n\x1a\n\r\n--\r\n",
        ),
        ("name=\"empty\"; filename=\"empty\"", b""),
    ])
}

#[test]
fn a_form_in_memory_is_an_argument() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = server.connect();
    let answer = client.ask(posted("/memory", example()));
    assert_eq!(
        answer.text(),
        "note/None/Some(\"Ebbe & Flut, größer\\r\\n\")/23; a/None/None/0; a/Some(\"Meer.png\")/None/14; \
         empty/Some(\"empty\")/None/0; text None, file true; taken 14 of 4"
    );
    assert_eq!(client.ask(posted("/memory", "--x--\r\n")).text(), "text None, file false");
    let quoted = "Content-Type: Multipart/Form-Data; charset=utf-8; boundary=\"a b\"\r\n";
    let body = "--a b\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--a b--";
    let quoted = request("POST", "/memory", &format!("{quoted}Content-Length: {}\r\n", body.len()));
    assert_eq!(client.ask(quoted + body).text(), "a/None/Some(\"b\")/1; text Some(\"b\"), file false");
}

#[test]
fn what_is_no_form_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let good = String::from_utf8(form(&[("name=a", b"b")])).unwrap();
    let of = |path: &str, content_type: &str| {
        let length = format!("Content-Length: {}\r\n", good.len());
        server.ask(request("POST", path, &format!("{content_type}{length}")) + &good)
    };
    for path in ["/memory", "/disk"] {
        for content_type in [
            "",
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "Content-Type: multipart/mixed; boundary=x\r\n",
            "Content-Type: multipart/form-data; boundary=a; boundary=x\r\n",
            "Content-Type: multipart/form-data, a/b\r\n",
            &TYPE.repeat(2),
        ] {
            let answer = of(path, content_type);
            assert_eq!(answer.status, 415, "{path} {content_type}: {}", answer.text());
            assert_eq!(answer.text(), "Content-Type: multipart/form-data is needed\n");
        }
        for boundary in ["", "; boundary=\"\"", "; boundary=\"x \"", "; boundary=\"a\u{e4}\""] {
            let answer = of(path, &format!("Content-Type: multipart/form-data{boundary}\r\n"));
            assert_eq!(answer.status, 400, "{path} {boundary}: {}", answer.text());
            assert_eq!(answer.text(), "body: the boundary in Content-Type is missing or malformed\n");
        }
        let binary = posted(path, form(&[("name=a; filename=b", b"\xff"), ("name=a", b"\xff")]));
        let answer = server.ask(binary);
        assert_eq!((answer.status, answer.text()), (400, "body: part 2 is neither a file nor UTF-8\n"));
        let bodiless = server.ask(request("POST", path, TYPE));
        assert_eq!((bodiless.status, bodiless.closes()), (400, false), "{}", bodiless.text());
    }
    assert_eq!(count(dir.path()), 0);
}

#[test]
fn every_malformed_form_gets_its_status_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = server.connect();
    for entry in malformed_forms() {
        let answer = client.ask(posted("/memory", &entry.request));
        assert_eq!(
            (answer.status, answer.closes()),
            (entry.status, false),
            "{}: {}",
            entry.why,
            answer.text()
        );
        assert!(answer.text().starts_with("body: "), "{}: {}", entry.why, answer.text());
        // Behind a file that is whole, unless it would be more of that.
        if !entry.request.starts_with(b"--x") {
            continue;
        }
        let body = [part("name=f; filename=f", b"data"), entry.request.clone()].concat();
        let answer = server.ask(posted("/disk", &body));
        assert_eq!(answer.status, entry.status, "{}: {}", entry.why, answer.text());
        assert_eq!(names(dir.path()), [""; 0], "{}", entry.why);
    }
}

#[test]
fn files_go_to_the_disk_under_the_names_that_the_program_gives() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = server.connect();
    let answer = client.ask(posted("/disk", example()));
    assert_eq!(answer.text(), "\"Ebbe & Flut, größer\\r\\n\" Meer.png:14:false empty:0:true");
    assert_eq!(std::fs::read(dir.path().join("Meer.png")).unwrap(), b"\x89PNG\r\n\x1a\n\r\n--\r\n");
    // A name that is taken is for the program to see to.
    let again =
        form(&[("name=a; filename=Meer.png", b"other"), ("name=a; filename=\"../../etc/passwd\"", b"")]);
    assert_eq!(client.ask(posted("/disk", &again)).text(), "\"\" Meer.png.1:5:false passwd:0:true");
    let taken = client.ask(posted("/disk", &again));
    assert_eq!((taken.status, taken.closes()), (409, false), "{}", taken.text());
    let hidden = form(&[("name=a; filename=\".htaccess\"", b"c"), ("name=a; filename=\"\"", b"d")]);
    assert_eq!(client.ask(posted("/disk", &hidden)).text(), "\"\" unnamed:1:false unnamed.1:1:false");
    assert_eq!(names(dir.path()), ["Meer.png", "Meer.png.1", "empty", "passwd", "unnamed", "unnamed.1"]);
}

#[test]
fn a_large_file_comes_whole_however_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = server.connect();
    let content: Vec<u8> =
        (0..20 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let body = form(&[("name=a; filename=large", &content)]);
    client.send(head("/disk", body.len()));
    client.send(&body);
    assert_eq!(client.answer().text(), format!("\"\" large:{}:false", content.len()));
    assert!(std::fs::read(dir.path().join("large")).unwrap() == content);
    // In chunks of odd sizes, and of one byte.
    let lines: Vec<u8> = b"\r\n--\r\n-".repeat(3000);
    for (size, name) in [(1, "one"), (7, "seven"), (997, "many")] {
        let body = form(&[(&format!("name=a; filename={name}"), &lines), ("name=note", b"x")]);
        client.send(request("POST", "/disk", &format!("{TYPE}Transfer-Encoding: chunked\r\n")));
        let chunks = body
            .chunks(size)
            .map(|data| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat());
        client.send(chunks.chain([b"0\r\n\r\n".to_vec()]).collect::<Vec<_>>().concat());
        assert_eq!(client.answer().text(), format!("\"x\" {name}:{}:false", lines.len()));
        assert!(std::fs::read(dir.path().join(name)).unwrap() == lines);
    }
}

#[test]
fn limits_hold_for_each_file_their_number_the_texts_and_all() {
    let dir = tempfile::tempdir().unwrap();
    let limits = FormDataLimits { max_parts: 5, ..FormDataLimits::default() };
    let set = |forms: FormUploads| forms.max_files(2).max_file_bytes(1000).max_text_bytes(100).limits(limits);
    let server = server_of(dir.path(), set);
    let (full, over) = ([b'x'; 1000], [b'x'; 1001]);
    let file = "name=f; filename=f";
    let cases: [(&[Named<'_>], &str); 6] = [
        (&[(file, &over)], "body: the file of part 1 has more than 1000 bytes\n"),
        (
            &[(file, &full), ("name=f; filename=\"\"", &over)],
            "body: the file of part 2 has more than 1000 bytes\n",
        ),
        (&[(file, b""), (file, b""), (file, b"")], "body: more than 2 files\n"),
        (&[("name=note", &[b'x'; 97])], "body: more than 100 bytes besides files\n"),
        (
            &[(file, b"x"), (&format!("name={}", "n".repeat(99)), b"")],
            "body: more than 100 bytes besides files\n",
        ),
        (&[("name=a", &b""[..]); 6], "body: more than 5 parts\n"),
    ];
    for (parts, text) in cases {
        let answer = server.ask(posted("/disk", form(parts)));
        assert_eq!((answer.status, answer.text()), (413, text));
    }
    assert_eq!(count(dir.path()), 0);
    let at_the_limit =
        form(&[(file, &full), (file, b""), ("name=f; filename=\"\"", b""), ("name=note", &[b'x'; 83])]);
    let answer = server.ask(posted("/disk", at_the_limit));
    assert_eq!((answer.status, count(dir.path())), (200, 2), "{}", answer.text());
    let answer = server.ask(head("/disk", (64 << 20) + 1));
    assert_eq!((answer.status, answer.closes()), (413, true), "before any of it has come");
    let answer = server.ask(head("/memory", (64 << 10) + 1));
    assert_eq!((answer.status, answer.closes()), (413, true));
}

#[test]
fn texts_of_all_forms_together_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let text = [part("name=note", &[b'x'; 60 << 10]), b"--x--".to_vec()].concat();
    let mut first = server.connect();
    let before = server.metrics().get(ListenerWord::BytesIn);
    let sent = [head("/loop", text.len()).into_bytes(), text[..text.len() - 1].to_vec()].concat();
    first.send(&sent);
    // What the loop has received it has taken before it looks at anybody else.
    eventually(|| server.metrics().get(ListenerWord::BytesIn) - before == sent.len() as u64);
    let mut second = server.connect();
    // The server may end the connection while this is under way, which is what is wanted.
    drop(second.stream.write_all(&posted("/loop", &text)));
    let refused = second.answer();
    assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
    first.send("-");
    assert_eq!(first.answer().status, 200);
    assert_eq!(server.ask(posted("/loop", &text)).status, 200, "what the first had is free again");
}

#[test]
fn what_is_broken_off_at_any_stage_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let body = form(&[("name=a; filename=a", b"0123456789"), ("name=b; filename=b", b"0123456789")]);
    let whole = posted("/disk", &body);
    let start = whole.len() - body.len();
    let cuts: Vec<usize> = (start..whole.len()).step_by(9).collect();
    for cut in &cuts {
        let mut client: Client = server.connect();
        client.send(&whole[..*cut]);
        drop(client);
    }
    eventually(|| server.metrics().closed(Reason::PEER_CLOSED) == cuts.len() as u64);
    // One job after the other runs on the pool of the route; what was begun is dropped by then or soon.
    eventually(|| count(dir.path()) == 0 && open_files_in(dir.path()) == 0);
    assert_eq!(server.get("/alive").text(), "alive");
    assert_eq!(server.ask(whole).text(), "\"\" a:10:false b:10:false");
}

/// How many files of a directory this process holds open, the directory itself left out; those without a name count.
fn open_files_in(dir: &Path) -> usize {
    let inside = format!("{}/", dir.display());
    let links = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    links.filter(|target| target.to_string_lossy().starts_with(&inside)).count()
}

#[test]
fn who_asks_before_sending_is_told_before_sending() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let expect = "Expect: 100-continue\r\nContent-Length: 1000\r\n";
    let answer = server.ask(request("POST", "/disk", &format!("Content-Type: text/plain\r\n{expect}")));
    assert_eq!((answer.status, answer.closes()), (415, true));
    let mut client = server.connect();
    let body = example();
    let expect = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    client.send(request("POST", "/disk", &format!("{TYPE}{expect}")));
    assert_eq!(client.answer().status, 100);
    client.send(body);
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_disk_that_is_full_is_507_and_nothing_stays() {
    on_small_disk("forms::a_disk_that_is_full_is_507_and_nothing_stays", |dir| {
        let server = server(dir);
        let mut client = server.connect();
        let full = vec![b'x'; 2 << 20];
        let body = form(&[("name=a; filename=a", b"small"), ("name=b; filename=b", &full)]);
        client.send(head("/disk", body.len()));
        // The server may end the connection while this is under way, which is what is wanted.
        drop(client.stream.write_all(&body));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (507, true));
        assert_eq!(server.ask(get_text("/alive")).text(), "alive");
        assert_eq!(count(dir), 0);
        let small = form(&[("name=a; filename=a", b"small")]);
        assert_eq!(server.ask(posted("/disk", small)).text(), "\"\" a:5:false", "there is room again");
    });
}

#[test]
fn curl_posts_forms() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let content: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("Grüße \"an\" alle;.bin");
    std::fs::write(&path, &content).unwrap();
    let file = format!("a=@\"{}\";type=image/png", path.display().to_string().replace('"', "\\\""));
    let ask = |path: &str, more: &[&str]| {
        let url = format!("http://{}{path}", server.address);
        let common =
            ["--silent", "--show-error", "--max-time", "20", "--form", "note=high tide", "--form", &file];
        let output = Command::new("curl").args(common).args(more).arg(url).output();
        match output {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Some(String::from_utf8(output.stdout).unwrap())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("curl: {error}"),
        }
    };
    let Some(text) = ask("/disk", &["--form-escape"]) else {
        println!("skipped: curl is not installed");
        return;
    };
    assert_eq!(text, "\"high tide\" Grüße \"an\" alle;.bin:300000:false");
    assert!(std::fs::read(dir.path().join("Grüße \"an\" alle;.bin")).unwrap() == content);
    // As browsers do, it writes a quote as %22 unless it is told otherwise.
    let text = ask("/disk", &["--header", "Transfer-Encoding: chunked"]).unwrap();
    assert_eq!(text, "\"high tide\" Grüße %22an%22 alle;.bin:300000:false");
    std::fs::write(&path, "small").unwrap();
    let text = ask("/memory", &[]).unwrap();
    assert!(
        text.ends_with("Some(\"Grüße %22an%22 alle;.bin\")/None/5; text None, file true; taken 5 of 2"),
        "{text}"
    );
}
