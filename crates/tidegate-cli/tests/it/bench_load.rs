//! `tidegate bench echo|http|msg`: the load generator through the binary, against this server and against nobody.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use rustix::process::{Signal, kill_process};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{
    Server, Setup, TIDEGATE, clean, id, pid, stderr, stdout, tidegate_in, wait_until, write_file,
};

const SHORT: [&str; 4] = ["--duration", "300ms", "--warmup", "50ms"];

fn bench(server: &Server, args: &[&str]) -> Output {
    server.tidegate(&[&["bench"], args, &SHORT].concat())
}

fn json(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_web_server_is_loaded_and_the_report_adds_up() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let url = format!("http://{}/", server.address("web"));
    let table = bench(&server, &["http", "--to", &url, "--connections", "5", "--threads", "2"]);
    assert!(table.status.success(), "{table:?}");
    let text = stdout(&table);
    assert!(text.starts_with("http to 127.0.0.1:") && text.contains("5 connections"), "{text}");
    for word in ["requests", "failed", "P99.99", "latency", "client: its 2 threads"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    // No terminal, so no progress.
    assert_eq!(stderr(&table), "");
    let picture = dir.path().join("latency.svg");
    let svg = picture.display().to_string();
    let told = json(&bench(&server, &["http", "--to", &url, "--json", "--svg", &svg]));
    assert!(told["requests"].as_u64().unwrap() > 0, "{told}");
    assert!(told["latency"]["p99_99_us"].as_f64().unwrap() >= told["latency"]["p50_us"].as_f64().unwrap());
    assert_eq!((&told["failures"]["wrong"], &told["wanted_rate"]), (&Value::from(0), &Value::Null));
    assert!(std::fs::read_to_string(picture).unwrap().starts_with("<svg"));
    let missing = bench(&server, &["http", "--to", &url, "--path", "/no/such/page"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stdout(&missing).contains("an answer with status 404"), "{missing:?}");
}

/// Web and echo over TLS, with a certificate for `localhost` in `a.pem`.
fn start_tls(dir: &TempDir) -> Server {
    let args = ["cert", "--self-signed", "--host", "localhost", "--cert", "a.pem", "--key", "a.key"];
    let made = tidegate_in(dir.path(), args);
    assert!(made.status.success(), "{made:?}");
    let listen = r#"
        process = { workers = 2 }
        listen = [
            { name = "web", address = "127.0.0.1:0", service = "web", tls = { cert = "a.pem", key = "a.key" } },
            { name = "echo", address = "127.0.0.1:0", service = "echo", tls = { cert = "a.pem", key = "a.key" } },
        ]
    "#;
    write_file(dir.path(), listen);
    Setup::file(dir).start()
}

#[test]
fn a_web_server_is_loaded_over_tls_and_the_report_tells_what_was_agreed_upon() {
    let dir = tempdir().unwrap();
    let server = start_tls(&dir);
    let url = format!("https://{}/", server.address("web"));
    let cacert = dir.path().join("a.pem").display().to_string();
    let trusted = ["http", "--to", &url, "--cacert", &cacert, "--server-name", "localhost"];
    let with = |more: &[&str]| bench(&server, &[&trusted, more].concat());
    let table = with(&[]);
    assert!(table.status.success(), "{table:?}");
    let text = stdout(&table);
    let line = "TLSv1.3 with TLS_AES_256_GCM_SHA384, http/1.1: 10 handshakes, ";
    assert!(text.contains(line) && text.contains("\nconnecting "), "{text}");
    assert!(!text.contains("not checked"), "{text}");
    // A connection for each request: they go on from each other, unless that is not wanted.
    for (more, resumed) in [(&["--close"][..], true), (&["--close", "--no-resumption"], false)] {
        let told = json(&with(&[more, &["--json", "--connections", "2"]].concat()));
        let agreed = &told["tls"]["agreed"][0];
        let (made, requests) = (told["made"].as_u64().unwrap(), told["requests"].as_u64().unwrap());
        assert!(made >= requests && requests > 0, "{told}");
        assert_eq!(agreed["handshakes"].as_u64().unwrap(), made, "{told}");
        // The first ones have nothing to go on from, and a ticket is used once.
        assert_eq!(agreed["resumed"].as_u64().unwrap() > made / 4, resumed, "{told}");
        assert_eq!(told["failures"]["connect"], 0, "{told}");
    }
    let told = json(&with(&[
        "--json",
        "--tls-version",
        "1.2",
        "--ciphers",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ]));
    assert_eq!(told["tls"]["agreed"][0]["protocol"], "TLSv1.2", "{told}");
    assert_eq!(told["tls"]["agreed"][0]["cipher"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "{told}");
    let rate = json(&with(&["--json", "--rate", "500"]));
    let due = rate["requests"].as_u64().unwrap() + rate["unsent"].as_u64().unwrap();
    assert!(due.abs_diff(150) <= 1, "{rate}");
    let table = bench(&server, &["http", "--to", &url, "--insecure"]);
    assert!(table.status.success(), "{table:?}");
    assert!(stdout(&table).contains("The server's certificate was not checked (--insecure)"), "{table:?}");
    let echo = server.address("echo").to_string();
    let echo = bench(&server, &["echo", "--to", &echo, "--tls", "--insecure"]);
    assert!(stdout(&echo).contains(", no protocol by name: 10 handshakes"), "{echo:?}");
}

#[test]
fn a_certificate_that_is_not_trusted_says_what_to_do() {
    let dir = tempdir().unwrap();
    let server = start_tls(&dir);
    let (address, plain) = (server.address("web"), format!("http://{}/", server.address("web")));
    let url = format!("https://{address}/");
    let cacert = dir.path().join("a.pem").display().to_string();
    let failed =
        format!("connect to {address}: the handshake failed: the server's certificate is not trusted: ");
    let advice = "--cacert FILE trusts the certificates in FILE, --insecure trusts whoever answers";
    let other = tempdir().unwrap();
    let made = tidegate_in(
        other.path(),
        ["cert", "--self-signed", "--host", "b.example", "--cert", "b.pem", "--key", "b.key"],
    );
    assert!(made.status.success(), "{made:?}");
    let stranger = other.path().join("b.pem").display().to_string();
    for (args, why) in [
        (&["--cacert", &cacert][..], "it is for localhost, and not for 127.0.0.1"),
        (&["--cacert", &stranger, "--server-name", "localhost"], ""),
    ] {
        let output = bench(&server, &[&["http", "--to", &url], args].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = stderr(&output);
        assert!(told.contains(&format!("{failed}{why}")) && told.contains(advice), "{told}");
    }
    // Whoever forgets the s is answered, and not by a time-out.
    let output = bench(&server, &["http", "--to", &plain]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_gateway_is_loaded_at_a_constant_rate() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let to = server.address("gateway").to_string();
    let output = bench(&server, &["msg", "--to", &to, "--rate", "1000", "--connections", "4", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let told = json(&output);
    let due = told["requests"].as_u64().unwrap() + told["unsent"].as_u64().unwrap();
    assert!(due.abs_diff(300) <= 1, "{told}");
    assert!(told["lateness"].is_object(), "{told}");
}

#[test]
fn what_cannot_be_run_says_what_and_where() {
    let dir = tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for (args, text) in [
        (&["echo", "--to", &address][..], &*format!("connect to {address}: Connection refused")),
        (&["echo", "--to", "127.0.0.1"], "\"127.0.0.1\" is no address: a port is missing"),
        (&["echo", "--to", &address, "--size", "0"], "the size of a message must be 1 to 1048576, not 0"),
        (&["http", "--to", "ftp://127.0.0.1/"], "only the schemes http and https can be loaded"),
        (
            &["http", "--to", "http://127.0.0.1/", "--insecure"],
            "--insecure is about TLS, which was not asked for",
        ),
        (&["http", "--to", "https://127.0.0.1/", "--cacert", "/nowhere"], "--cacert: /nowhere: No such file"),
        (&["http", "--to", &address, "--path", "x"], "it does not begin with a slash"),
        (&["msg", "--to", &address, "--code", "6"], "a user and a password are needed"),
        (&["msg", "--to", &address, "--user", "u", "--password-file", "/nowhere"], "password file /nowhere"),
    ] {
        let output = tidegate_in(dir.path(), [&["bench"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(text) && stdout(&output).is_empty(), "{args:?}: {output:?}");
    }
    let usage = tidegate_in(dir.path(), ["bench", "echo"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_key_on_the_terminal_ends_a_load_with_what_it_has() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let to = server.address("gateway").to_string();
    let mut command = Command::new(TIDEGATE);
    clean(&mut command, dir.path()).args(["bench", "msg", "--to", &to, "--json", "--warmup", "0s"]);
    let child = command.args(["--duration", "1d"]).stdout(Stdio::piped()).spawn().unwrap();
    // Nothing is counted before the connections stand: the first answer is what the server has counted.
    let asked = || tidegate_bench::cpu_time(child.id()).unwrap().as_millis() > 100;
    wait_until("a load that is under way", asked);
    kill_process(pid(id(&child)), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = json(&output);
    assert!(told["requests"].as_u64().unwrap() > 0 && told["stopped_of"] == 86400.0, "{told}");
}
