//! TLS as an operator has it: a certificate by `tidegate cert`, real clients, reloads that read certificates again.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use crate::http::get;
use crate::processes::Exit;
use crate::support::{Server, Setup, clean, output_of, stderr, stdout, tidegate_in, wait_until, write_file};

const LISTEN: &str = r#"
process = { workers = 2 }
listen = [
    { name = "web", address = "127.0.0.1:0", service = "web", tls = { cert = "a.pem", key = "a.key" } },
    { name = "echo", address = "127.0.0.1:0", service = "echo", tls = { cert = "a.pem", key = "a.key", min_version = "1.3" } },
    { name = "admin", address = "127.0.0.1:0", service = "admin" },
]
"#;

/// Makes a certificate for a host, in place of what was there.
pub(crate) fn certificate(dir: &Path, host: &str) {
    for file in ["a.pem", "a.key"] {
        if dir.join(file).exists() {
            fs::remove_file(dir.join(file)).unwrap();
        }
    }
    let args =
        ["cert", "--self-signed", "--host", host, "--host", "127.0.0.1", "--cert", "a.pem", "--key", "a.key"];
    let made = tidegate_in(dir, args);
    assert!(made.status.success(), "{made:?}");
    assert!(stdout(&made).contains("tls = { cert = "), "{made:?}");
}

fn start(dir: &TempDir) -> Server {
    certificate(dir.path(), "localhost");
    write_file(dir.path(), LISTEN);
    Setup::file(dir).start()
}

/// Whether a program is there; without it the test says so.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

/// What a program prints, and then says on standard error.
pub(crate) fn said(dir: &Path, program: &str, args: &[&str]) -> String {
    let output = output_of(clean(&mut Command::new(program), dir).args(args).stdin(Stdio::null()));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A connection by `openssl s_client` that stays open.
struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    fn open(dir: &Path, address: SocketAddr) -> Self {
        let mut command = Command::new("openssl");
        let command = clean(&mut command, dir);
        let command =
            command.args(["s_client", "-quiet", "-CAfile", "a.pem", "-verify_return_error", "-connect"]);
        let command = command.arg(address.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    #[track_caller]
    fn echo(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), line);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which host the certificate of a listener is for.
fn subject(dir: &Path, address: SocketAddr) -> String {
    let text = said(dir, "openssl", &["s_client", "-connect", &address.to_string()]);
    let line = text.lines().find(|line| line.trim_start().starts_with("subject="));
    line.unwrap_or_else(|| panic!("no subject in {text}")).trim().to_owned()
}

#[test]
fn a_balancer_names_its_client_before_the_handshake() {
    if !has("curl") {
        return;
    }
    let dir = tempdir().unwrap();
    certificate(dir.path(), "localhost");
    let proxied = LISTEN.replace(r#"service = "web","#, r#"service = "web", proxy_protocol = true,"#);
    write_file(dir.path(), &proxied);
    let server = Setup::file(&dir).start();
    let port = server.address("web").port();
    let (to, url) = (format!("localhost:{port}:127.0.0.1:{port}"), format!("https://localhost:{port}/hello"));
    let ask = |more: &[&str]| {
        let common =
            ["--silent", "--show-error", "--max-time", "20", "--cacert", "a.pem", "--connect-to", &to, &url];
        said(dir.path(), "curl", &[more, &common].concat())
    };
    assert_eq!(ask(&["--haproxy-protocol"]), "Hello, World!");
    // Without its header a balancer is not believed, whatever it says behind it.
    assert!(!ask(&[]).contains("Hello"));
    let status = get(server.address("admin"), "/metrics").body;
    assert!(status.contains("reason=\"proxy-header\",number=\"33\"} 1"), "{status}");
}

#[test]
fn real_clients_are_served() {
    let dir = tempdir().unwrap();
    let server = start(&dir);
    let web = server.address("web");
    let url = format!("https://localhost:{}/hello", web.port());
    if has("curl") {
        let to = format!("localhost:{0}:127.0.0.1:{0}", web.port());
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let (version, most) = version.split_once('=').unwrap_or((version, "default"));
            let args = if most == "default" { vec![version] } else { vec![version, most] };
            let common = ["-sS", "--cacert", "a.pem", "--connect-to", &to, &url, &url];
            let text = said(dir.path(), "curl", &[&args[..], &common].concat());
            assert_eq!(text, "Hello, World!Hello, World!");
        }
        let text = said(dir.path(), "curl", &["-sS", "--connect-to", &to, &url]);
        assert!(text.contains("certificate"), "nobody has told it to trust the certificate: {text}");
    }
    if has("openssl") {
        let at = web.to_string();
        let common =
            ["s_client", "-CAfile", "a.pem", "-servername", "localhost", "-alpn", "h2,http/1.1", "-connect"];
        for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
            let text = said(dir.path(), "openssl", &[&common[..], &[&at, version]].concat());
            for part in ["ALPN protocol: http/1.1", "Verify return code: 0 (ok)", name] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        let text = said(
            dir.path(),
            "openssl",
            &["s_client", "-tls1_2", "-connect", &server.address("echo").to_string()],
        );
        assert!(text.contains("protocol version"), "its lowest version is 1.3: {text}");
        Session::open(dir.path(), server.address("echo")).echo("over TLS");
    }
    if has("python3") {
        let script = "import ssl, http.client, sys\n\
            context = ssl.create_default_context(cafile='a.pem')\n\
            c = http.client.HTTPSConnection('127.0.0.1', int(sys.argv[1]), context=context, timeout=60)\n\
            for _ in range(3):\n    c.request('GET', '/hello'); a = c.getresponse(); print(a.status, a.read().decode())\n";
        let text = said(dir.path(), "python3", &["-c", script, &web.port().to_string()]);
        assert_eq!(text, "200 Hello, World!\n".repeat(3));
    }
    if has("h2load") {
        let args = ["--h1", "-n", "200", "-c", "4", &format!("https://{web}/hello")];
        let text = said(dir.path(), "h2load", &args);
        assert!(text.contains("200 succeeded, 0 failed, 0 errored"), "{text}");
    }
    let metrics = get(server.address("admin"), "/metrics").body;
    assert!(metrics.contains("tidegate_tls_handshakes_total{process=\"worker-0\""), "{metrics}");
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn a_reload_reads_certificates_again_and_leaves_connections_alone() {
    if !has("openssl") {
        return;
    }
    let dir = tempdir().unwrap();
    let server = start(&dir);
    let echo = server.address("echo");
    assert!(subject(dir.path(), echo).ends_with("localhost"));
    let mut before = Session::open(dir.path(), echo);
    before.echo("before");
    certificate(dir.path(), "new.example");
    assert!(
        subject(dir.path(), echo).ends_with("localhost"),
        "nobody has said yet that it is to be read again"
    );
    server.reload();
    wait_until("the new certificate is shown", || subject(dir.path(), echo).ends_with("new.example"));
    before.echo("still the same connection");
    // One that cannot be served changes nothing, and is told with its place.
    fs::write(dir.path().join("a.pem"), "no certificate\n").unwrap();
    let refused = server.refused(&["reload"]);
    assert!(
        refused.contains("tidegate.toml:") && refused.contains("a.pem: no certificate in it"),
        "{refused}"
    );
    let check = server.tidegate(&["check"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(stderr(&check).contains("listen.web.tls") && stderr(&check).contains("a.pem"), "{check:?}");
    // What has to be stopped can be, whatever stands in the file by now.
    assert!(subject(dir.path(), echo).ends_with("new.example"));
    before.echo("and still");
    drop(before);
    assert!(server.tidegate(&["stop"]).status.success());
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn a_session_goes_on_in_any_worker_and_after_a_reload() {
    if !has("openssl") {
        return;
    }
    let dir = tempdir().unwrap();
    let server = start(&dir);
    let at = server.address("web").to_string();
    let request = "GET /hello HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n";
    let connect = |session: &str| {
        let line = format!(
            "printf '{request}' | openssl s_client -CAfile a.pem -servername localhost -ign_eof -connect {at} {session}"
        );
        said(dir.path(), "sh", &["-c", &line])
    };
    let first = connect("-sess_out session");
    assert!(first.contains("New, TLSv1.3") && first.contains("Hello, World!"), "{first}");
    for _ in 0..6 {
        let text = connect("-sess_in session");
        assert!(text.contains("Reused, TLSv1.3") && text.contains("Hello, World!"), "{text}");
    }
    server.reload();
    let text = connect("-sess_in session");
    assert!(text.contains("Reused, TLSv1.3"), "{text}");
    server.upgrade();
    let text = connect("-sess_in session");
    assert!(text.contains("Reused, TLSv1.3"), "{text}");
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_with_its_place() {
    let dir = tempdir().unwrap();
    certificate(dir.path(), "localhost");
    let check = |tls: &str| {
        let listen = "name = \"web\", address = \"127.0.0.1:0\", service = \"web\"";
        write_file(dir.path(), &format!("[[listen]]\n{}\n{tls}\n", listen.replace(", ", "\n")));
        let output = tidegate_in(dir.path(), ["check"]);
        assert_eq!(output.status.code(), Some(2), "{tls}: {output:?}");
        stderr(&output).to_owned()
    };
    fs::write(dir.path().join("other.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    for (tls, what) in [
        ("tls = { cert = \"a.pem\" }", "tls has no key"),
        ("tls = { cert = \"a.pem\", kez = \"a.key\" }", "did you mean \"key\""),
        (
            "tls = { cert = \"a.pem\", key = \"a.key\", min_version = \"1.1\" }",
            "min_version: unknown value \"1.1\"",
        ),
        ("tls = { cert = \"none.pem\", key = \"a.key\" }", "none.pem: No such file"),
        ("tls = { cert = \"a.key\", key = \"a.key\" }", "a.key: no certificate in it"),
        ("tls = { cert = \"a.pem\", key = \"a.pem\" }", "a.pem: no private key in it"),
        ("tls = { cert = \"a.pem\", key = \"other.key\" }", "other.key: the private key is not that of"),
        ("tls = \"a.pem\"", "a string is not allowed"),
    ] {
        let text = check(tls);
        assert!(text.contains(what) && text.contains("tidegate.toml:6:"), "{tls}: {text}");
    }
    write_file(
        dir.path(),
        "listen = [{ name = \"e\", address = \"udp:127.0.0.1:0\", service = \"echo\", tls = { cert = \"a.pem\", key = \"a.key\" } }]\n",
    );
    let output = tidegate_in(dir.path(), ["check"]);
    assert!(stderr(&output).contains("has no effect"), "{output:?}");
}
