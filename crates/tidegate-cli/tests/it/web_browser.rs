//! A browser as a client of the web server, over TLS: pages and what they need, the accounts, forms with files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tidegate::web::{Html, Request, Response, UploadDir, UploadedForm, Web, post, sink};
use tidegate::{Certificate, Server, SpawnedServer, Tls};

use crate::browser::Browser;
use crate::log::records;
use crate::support::{Server as Program, Setup, wait_until};
use crate::tls::{certificate, has, said};

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Tide tables</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<h1>High water</h1>
<img src="chart.svg" alt="A chart">
<audio src="surf.wav" preload="auto"></audio>
<script src="page.js"></script>
"#;

const CONFIGURATION: &str = r#"
data_dir = "data"
process = { workers = 2 }
listen = [{ name = "web", address = "127.0.0.1:0", service = "web", tls = { cert = "a.pem", key = "a.key" } }]

[web]
root = "site"
api = true
precompressed = true
access_log = "json"
# What a page needs is asked for again at each visit, and sent when it has changed.
cache_control = [{ files = "**", value = "no-cache" }]
"#;

/// Writes a site, and a certificate for it.
fn site() -> TempDir {
    let dir = tempdir().unwrap();
    let root = dir.path().join("site");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), PAGE.to_owned() + &"<p>Low water, high water.\n".repeat(200)).unwrap();
    fs::write(root.join("style.css"), "h1 { color: rgb(1, 2, 3) }\n".repeat(100)).unwrap();
    fs::write(
        root.join("page.js"),
        "window.ran = (window.ran || 0) + 1;\n".to_owned() + &"// calm\n".repeat(500),
    )
    .unwrap();
    let circles = "<circle cx=\"50\" cy=\"20\" r=\"9\"/>".repeat(100);
    let chart =
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"120\" height=\"40\">{circles}</svg>");
    fs::write(root.join("chart.svg"), chart).unwrap();
    fs::write(root.join("surf.wav"), surf()).unwrap();
    fs::write(root.join("ebb.txt"), EBB).unwrap();
    fs::write(root.join("ebb.txt.zst"), zstd(EBB)).unwrap();
    certificate(dir.path(), "localhost");
    fs::write(dir.path().join("tidegate.toml"), CONFIGURATION).unwrap();
    dir
}

const EBB: &str = "The tide goes out.";

/// A frame of Zstandard with one block that is not compressed (RFC 8878, section 3.1.1).
fn zstd(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    // Descriptor: one segment, with its size in a byte. Block: the last, raw, with its size from bit 3 on.
    let block = (u32::from(len) << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, len][..], &block[..3], text.as_bytes()].concat()
}

/// 100 s of sound, in bytes that say where they are: the second in each.
fn surf() -> Vec<u8> {
    const RATE: u32 = 22_050;
    let samples: Vec<u8> = (0..100).flat_map(|second: u8| [second; RATE as usize]).collect();
    let len = u32::try_from(samples.len()).unwrap();
    let format =
        [&16u32.to_le_bytes()[..], &[1, 0, 1, 0], &RATE.to_le_bytes(), &RATE.to_le_bytes(), &[1, 0, 8, 0]]
            .concat();
    [b"RIFF", &(len + 36).to_le_bytes()[..], b"WAVEfmt ", &format, b"data", &len.to_le_bytes(), &samples]
        .concat()
}

/// What a browser is told to trust: the key of the certificate `a.pem`.
fn key_of(dir: &Path) -> String {
    let line = "openssl x509 -in a.pem -pubkey -noout | openssl pkey -pubin -outform der \
                | openssl dgst -sha256 -binary | openssl base64";
    said(dir, "sh", &["-c", line]).trim().to_owned()
}

fn browser(dir: &Path) -> Option<Browser> {
    if has("openssl") { Browser::open_trusting(&key_of(dir)) } else { None }
}

/// The statuses with which a path was answered so far, in order.
fn answers(server: &Program, path: &str) -> Vec<u64> {
    let of_access = records(server).into_iter().filter(|record| record.target == "tidegate_web::access");
    let of_path = of_access.filter(|record| record.attributes["url"] == path);
    of_path.map(|record| record.attributes["status"].as_u64().unwrap()).collect()
}

/// Waits until a path has been answered like this; what is recorded is stored within a second.
#[track_caller]
fn wait_for_answers(server: &Program, path: &str, wanted: &[u64]) {
    wait_until(&format!("{path} is answered with {wanted:?}"), || answers(server, path) == wanted);
}

const NEEDED: [&str; 4] = ["/", "/style.css", "/chart.svg", "/page.js"];

#[test]
fn a_page_comes_with_all_it_needs_compressed_and_only_once() {
    let dir = site();
    let Some(browser) = browser(dir.path()) else { return };
    let server = Setup::file(&dir).start();
    let url = format!("https://localhost:{}/", server.address("web").port());
    browser.go(&url);
    assert_eq!(browser.text("document.title"), "Tide tables");
    assert_eq!(browser.text("getComputedStyle(document.querySelector('h1')).color"), "rgb(1, 2, 3)");
    assert_eq!(browser.value("document.querySelector('img').naturalWidth"), 120);
    assert_eq!(browser.value("window.ran"), 1);
    assert!(browser.is("isSecureContext"));
    for path in NEEDED {
        let entry = format!(
            "(e => e.encodedBodySize > 0 && e.encodedBodySize * 4 < e.decodedBodySize && e.nextHopProtocol)(\
             [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]\
             .find(e => new URL(e.name).pathname === '{path}'))"
        );
        assert_eq!(browser.value(&entry), "http/1.1", "{path} is not compressed");
        let coding =
            format!("fetch('{path}', {{cache: 'no-store'}}).then(a => a.headers.get('content-encoding'))");
        assert_eq!(browser.value(&coding), "br", "what the server likes best of what it accepts");
        wait_for_answers(&server, path, &[200, 200]);
    }
    let ebb = browser
        .value("fetch('/ebb.txt').then(async a => [a.headers.get('content-encoding'), await a.text()])");
    assert_eq!(ebb, json!(["zstd", EBB]), "the only one that lies beside the file");
    browser.reload();
    assert_eq!(browser.value("window.ran"), 1, "in a new document");
    assert_eq!(browser.value("document.querySelector('img').naturalWidth"), 120);
    NEEDED.iter().for_each(|path| wait_for_answers(&server, path, &[200, 200, 304]));
    fs::write(dir.path().join("site/style.css"), "h1 { color: rgb(4, 5, 6) }\n".repeat(99)).unwrap();
    // Each worker looks at its files again after a moment.
    wait_until("a style sheet that has changed is fetched anew", || {
        browser.reload();
        browser.text("getComputedStyle(document.querySelector('h1')).color") == "rgb(4, 5, 6)"
    });
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn parts_of_a_file_are_fetched_and_sound_is_played_from_the_middle() {
    let dir = site();
    let Some(browser) = browser(dir.path()) else { return };
    let server = Setup::file(&dir).start();
    browser.go(&format!("https://localhost:{}/", server.address("web").port()));
    let part = "fetch('/surf.wav', {cache: 'no-store', headers: {Range: 'bytes=22090-22097'}}).then(async a => \
                [a.status, a.headers.get('content-range'), [...new Uint8Array(await a.arrayBuffer())]])";
    let wanted = json!([206, "bytes 22090-22097/2205044", [0, 0, 0, 0, 1, 1, 1, 1]]);
    assert_eq!(browser.value(part), wanted);
    let beyond = "fetch('/surf.wav', {cache: 'no-store', headers: {Range: 'bytes=9999999-'}}).then(a => [a.status, a.headers.get('content-range')])";
    assert_eq!(browser.value(beyond), json!([416, "bytes */2205044"]));
    browser.wait_for(
        "the browser knows how long it is",
        "Math.round(document.querySelector('audio').duration) === 100",
    );
    browser.value("document.querySelector('audio').currentTime = 90");
    browser.wait_for(
        "it has what is to be played there",
        "(a => !a.seeking && a.readyState >= 2 && a.currentTime === 90 && !a.error)(document.querySelector('audio'))",
    );
    // One of them was ours.
    wait_until("the browser asks for parts by itself", || {
        let mut answers = answers(&server, "/surf.wav");
        answers.retain(|status| *status == 206);
        answers.len() >= 2
    });
}

#[test]
fn a_session_is_a_cookie_that_no_script_sees() {
    let dir = site();
    let Some(browser) = browser(dir.path()) else { return };
    let server = Setup::file(&dir).start();
    browser.go(&format!("https://localhost:{}/", server.address("web").port()));
    let post = |path: &str, body: &Value| {
        browser.value(&format!(
            "fetch('{path}', {{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: JSON.stringify({body})}})\
             .then(async a => [a.status, await a.text()])"
        ))
    };
    let me = "fetch('/api/me').then(async a => [a.status, (await a.json()).user])";
    let ada = json!({"user": "ada", "password": "correct horse"});
    assert_eq!(browser.value(me), json!([401, null]));
    assert_eq!(post("/api/register", &ada)[0], 201);
    let wrong = json!({"user": "ada", "password": "battery staple"});
    assert_eq!(post("/api/login", &wrong)[0], 401);
    assert_eq!(browser.value(me), json!([401, null]));
    assert_eq!(post("/api/login", &ada)[0], 200);
    assert_eq!(browser.value(me), json!([200, "ada"]));
    assert_eq!(browser.text("document.cookie"), "", "it is HttpOnly");
    let cookie = browser.cookie("__Host-tidegate_session");
    let flags = ["httpOnly", "secure", "sameSite", "path"].map(|name| cookie[name].clone());
    assert_eq!(flags, [json!(true), json!(true), json!("Lax"), json!("/")]);
    browser.reload();
    assert_eq!(browser.value(me), json!([200, "ada"]), "it outlives the page");
    // A page of another site: the browser neither sends the cookie nor gets an answer that it may read.
    let other = format!("https://127.0.0.1:{}", server.address("web").port());
    let cross = format!(
        "fetch('{other}/api/login', {{method: 'POST', mode: 'no-cors', credentials: 'include', \
         body: new URLSearchParams({ada})}}).then(a => a.type)"
    );
    assert_eq!(browser.value(&cross), "opaque");
    browser.go(&other);
    assert_eq!(browser.value(me), json!([401, null]), "a login from another site has left nothing");
    browser.go(&format!("https://localhost:{}/", server.address("web").port()));
    assert_eq!(post("/api/logout", &json!({}))[0], 204);
    assert_eq!(browser.value(me), json!([401, null]));
}

const FORM: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Files</title>
<link rel="icon" href="data:,">
<form method="post" enctype="multipart/form-data">
<input name="note"><textarea name="text"></textarea>
<input name="files" type="file" multiple><input name="none" type="file">
<button>Send</button>
</form>
"#;

/// What a form has brought, in words.
fn store(mut form: UploadedForm) -> Result<Html<String>, Response> {
    let fields =
        form.texts.fields().iter().map(|field| format!("{}={:?}", field.part().name(), field.text()));
    let mut said: Vec<String> = fields.collect();
    for (number, file) in form.files.iter_mut().enumerate() {
        file.save(&format!("file-{number}"))?;
        let part = file.part();
        said.push(format!("{}={:?} {:?} {}", part.name(), part.file_name(), part.content_type(), file.len()));
    }
    let escaped = said.join("\n").replace('&', "&amp;").replace('<', "&lt;");
    Ok(Html(format!("<!doctype html><meta charset=\"utf-8\"><title>Stored</title><pre>{escaped}</pre>")))
}

/// A service with a form whose files go to a folder, over TLS, in this process.
fn form_service(dir: &Path) -> SpawnedServer {
    let certificate = Certificate::read(&dir.join("a.pem"), &dir.join("a.key")).unwrap();
    let tls = Tls::builder().certificate(certificate).alpn(["http/1.1"]).build().unwrap();
    let forms = Arc::new(UploadDir::open(dir.join("uploads")).unwrap().forms().max_file_bytes(4 << 20));
    let web = move || {
        let forms = Arc::clone(&forms);
        let store = sink(move |request: &Request<'_>| forms.begin(request, store));
        let routes = post(store).max_body_bytes(8 << 20).blocking().get(|| Html(FORM));
        Ok(Web::builder().route("/", routes).build()?)
    };
    Server::builder().listen_named("web", "127.0.0.1:0", web).tls(tls).workers(0).spawn().unwrap()
}

#[test]
fn a_form_brings_its_files() {
    let dir = tempdir().unwrap();
    certificate(dir.path(), "localhost");
    let Some(browser) = browser(dir.path()) else { return };
    fs::create_dir(dir.path().join("uploads")).unwrap();
    let server = form_service(dir.path());
    let url = format!("https://localhost:{}/", server.address("web").unwrap().port());
    let large: Vec<u8> = (0..3u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let files = [
        ("Gr\u{fc}\u{df}e \"1\".bin", &large[..]),
        ("empty.txt", b""),
        ("lines.txt", b"\r\n--\r\n------WebKitFormBoundary\r\n"),
    ];
    let paths = files.map(|(name, content)| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    });
    browser.go(&url);
    browser.fill("[name=note]", "a \"b\" & \u{fc}");
    browser.fill("[name=text]", "one\ntwo");
    browser.fill("[name=files]", &paths.join("\n"));
    browser.click("button");
    browser.wait_for("the form has come", "document.title === 'Stored'");
    let wanted = [
        "note=Some(\"a \\\"b\\\" & \u{fc}\")".to_owned(),
        "text=Some(\"one\\r\\ntwo\")".to_owned(),
        format!(
            "files=Some(\"Gr\u{fc}\u{df}e %221%22.bin\") Some(\"application/octet-stream\") {}",
            large.len()
        ),
        "files=Some(\"empty.txt\") Some(\"text/plain\") 0".to_owned(),
        format!("files=Some(\"lines.txt\") Some(\"text/plain\") {}", files[2].1.len()),
    ];
    assert_eq!(browser.text("document.querySelector('pre').textContent"), wanted.join("\n"));
    for (number, (name, content)) in files.iter().enumerate() {
        assert!(fs::read(dir.path().join(format!("uploads/file-{number}"))).unwrap() == *content, "{name}");
    }
    // A script's form, without anything in it, and one with a file that is too large.
    let by_script = |form: &str| {
        browser.value(&format!(
            "(form => fetch('/', {{method: 'POST', body: form}}).then(a => a.status))({form})"
        ))
    };
    assert_eq!(by_script("new FormData()"), 200);
    let with = "(form => (form.append('a', new Blob([new Uint8Array(4194305)])), form))(new FormData())";
    assert_eq!(by_script(with), 413);
    assert_eq!(fs::read_dir(dir.path().join("uploads")).unwrap().count(), files.len());
    server.stop();
    server.join().unwrap();
}
