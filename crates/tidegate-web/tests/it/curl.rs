//! What curl makes of it, where it is installed.

use std::process::{Command, Output};

use tidegate_web::Web;

use crate::client::Server;
use crate::files::{root, site};

fn curl(arguments: &[&str]) -> Option<Output> {
    match Command::new("curl").args(["--silent", "--show-error", "--max-time", "20"]).args(arguments).output()
    {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: curl is not installed");
            None
        }
        Err(error) => panic!("curl: {error}"),
    }
}

#[test]
fn curl_is_served() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let url = |path: &str| format!("http://{}{path}", server.address);

    let large = std::fs::read(root(&dir).join("large.bin")).unwrap();
    let Some(output) = curl(&[&url("/large.bin"), &url("/")]) else { return };
    assert!(output.status.success() && output.stdout == [&large[..], b"<h1>home</h1>"].concat());

    let status = |arguments: &[&str]| {
        let arguments =
            [&["--output", "/dev/null", "--write-out", "%{http_code} %{num_connects}"], arguments];
        String::from_utf8(curl(&arguments.concat()).expect("it was there").stdout).unwrap()
    };
    assert_eq!(status(&[&url("/missing")]), "404 1");
    assert_eq!(status(&["--head", &url("/large.bin")]), "200 1");
    assert_eq!(status(&["--location", &url("/dir")]), "200 1");
    assert_eq!(status(&["--http1.0", &url("/")]), "200 1");
    assert_eq!(status(&["--data", "a=b", &url("/")]), "405 1");
    assert_eq!(status(&["--header", "Transfer-Encoding: chunked", "--data", "a=b", &url("/")]), "405 1");
    assert_eq!(status(&["--header", "Expect: 100-continue", "--data", "a=b", &url("/")]), "405 1");
    let file = root(&dir).join("index.html");
    assert_eq!(status(&["--time-cond", file.to_str().unwrap(), &url("/index.html")]), "304 1");
}
