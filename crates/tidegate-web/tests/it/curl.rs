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

#[test]
fn curl_gets_parts_resumes_and_decodes() {
    let dir = site();
    let large = std::fs::read(root(&dir).join("large.bin")).unwrap();
    let prose = "The tide comes in, and the tide goes out. ".repeat(200);
    std::fs::write(root(&dir).join("prose.txt"), &prose).unwrap();
    let server = Server::start(Web::builder().root(root(&dir)));
    let url = |path: &str| format!("http://{}{path}", server.address);

    let Some(output) = curl(&["--range", "1000-70000", &url("/large.bin")]) else { return };
    assert!(output.status.success() && output.stdout == large[1000..=70_000]);
    let target = dir.path().join("download");
    std::fs::write(&target, &large[..3 << 20]).unwrap();
    let resumed = ["--continue-at", "-", "--output", target.to_str().unwrap(), &url("/large.bin")];
    assert!(curl(&resumed).expect("it was there").status.success());
    assert!(std::fs::read(&target).unwrap() == large);

    let output = curl(&["--compressed", "--write-out", "%{size_download}", &url("/prose.txt")]);
    let output = String::from_utf8(output.expect("it was there").stdout).unwrap();
    let downloaded = output.strip_prefix(&prose).expect("the text, decoded").parse::<usize>().unwrap();
    // A curl that was built without any decoder gets the text as it is.
    assert!(downloaded < prose.len() / 10 || downloaded == prose.len(), "{downloaded}");
}
