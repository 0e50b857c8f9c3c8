//! What other clients make of it, where they are installed: Python's standard library and `h2load`.

use std::process::{Command, Output};

use tidegate_web::{Status, Web};

use crate::client::Server;
use crate::files::{root, site};

/// Runs a program, and says so when it is not there.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Every request over one connection: `http.client` reads each answer by its framing, so one byte too many or too few
/// breaks the next.
const PYTHON: &str = r#"
import hashlib, http.client, sys, urllib.request

host, large = sys.argv[1], sys.argv[2]
connection = http.client.HTTPConnection(host, timeout=20)
connection.connect()
first = connection.sock

def ask(method, path, body=None, headers={}, **more):
    connection.request(method, path, body, headers, **more)
    answer = connection.getresponse()
    content = answer.read()
    assert connection.sock is first, (method, path, "another connection")
    return answer.status, content

for _ in range(3):
    assert ask("GET", "/hello") == (200, b"Hello, World!")
    assert ask("HEAD", "/hello") == (200, b"")
    assert ask("GET", "/missing")[0] == 404
    assert ask("OPTIONS", "*") == (200, b"")
    assert ask("GET", "/hello", b"x" * 70000) == (200, b"Hello, World!")
    assert ask("GET", "/hello", iter([b"a", b"b" * 9000]), {}, encode_chunked=True) == (200, b"Hello, World!")
    status, content = ask("GET", "/large.bin")
    assert status == 200 and hashlib.sha256(content).hexdigest() == large, status

connection.request("GET", "/hello", headers={"Connection": "close"})
answer = connection.getresponse()
assert answer.read() == b"Hello, World!" and answer.will_close

with urllib.request.urlopen(f"http://{host}/dir", timeout=20) as answer:
    assert answer.status == 200 and answer.url.endswith("/dir/"), answer.url
print("all well")
"#;

#[test]
fn the_standard_client_of_python_is_served() {
    let dir = site();
    let server =
        Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!").root(root(&dir)));
    let Some(sum) = run("sha256sum", &[root(&dir).join("large.bin").to_str().unwrap()]) else { return };
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sum = sum.split_whitespace().next().expect("a checksum");
    let Some(output) = run("python3", &["-c", PYTHON, &server.address.to_string(), sum]) else { return };
    let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.0.trim() == "all well", "{said:?}");
}

#[test]
fn h2load_gets_every_answer() {
    let server = Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!"));
    let url = format!("http://{}/hello", server.address);
    let Some(output) = run("h2load", &["--h1", "-n", "2000", "-c", "8", &url]) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    assert_eq!(server.counter("requests"), 2000);
}
