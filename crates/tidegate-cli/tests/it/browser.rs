//! A browser: headless Chromium, driven by chromedriver, in the words of WebDriver (<https://www.w3.org/TR/webdriver2/>).
//!
//! Invariant: when it is dropped, the driver and every process of the browser are gone: they are a group of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{BOUND, id, pid, wait_until};

/// What it shows pages on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    Desktop,
    Phone,
}

/// Whether the user has asked for dark pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// A browser with one page.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// What it writes.
    _profile: TempDir,
}

impl Browser {
    /// `None`, and a line that says so, where there is none.
    pub(crate) fn open(screen: Screen, scheme: Scheme) -> Option<Self> {
        Self::open_with(screen, scheme, None)
    }

    /// One that trusts a key besides those of its authorities: the SHA-256 of its public part, in Base64.
    pub(crate) fn open_trusting(key: &str) -> Option<Self> {
        Self::open_with(Screen::Desktop, Scheme::Light, Some(key))
    }

    fn open_with(screen: Screen, scheme: Scheme, trusted_key: Option<&str>) -> Option<Self> {
        for program in ["chromedriver", "chromium"] {
            let there =
                Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !there.is_ok_and(|status| status.success()) {
                eprintln!("skipped: there is no {program} (Debian: chromium, chromium-driver)");
                return None;
            }
        }
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("TMPDIR", profile.path()).env("HOME", profile.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let said = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned())
        });
        // Nobody reads what else it says, and it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        let port = said.expect("chromedriver says its port").parse().unwrap();
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let session =
            browser.call("POST", "/session", &capabilities(screen, browser._profile.path(), trusted_key));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        let features = match scheme {
            Scheme::Light => json!([{"name": "prefers-color-scheme", "value": "light"}]),
            Scheme::Dark => json!([{"name": "prefers-color-scheme", "value": "dark"}]),
        };
        browser.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
        Some(browser)
    }

    pub(crate) fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Loads the page again, as a user does.
    pub(crate) fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// Types into a field; for one of files, their paths with a line end between them.
    pub(crate) fn fill(&self, css: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.element(css)), &json!({"text": text}));
    }

    /// A cookie, as the browser keeps it.
    pub(crate) fn cookie(&self, name: &str) -> Value {
        self.call("GET", &format!("/session/{}/cookie/{name}", self.session), &Value::Null)
    }

    /// The value of an expression, in the page; that of a promise when it is kept.
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.post("/execute/sync", &json!({"script": format!("return {expression};"), "args": []}))
    }

    pub(crate) fn text(&self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn is(&self, expression: &str) -> bool {
        self.value(&format!("!!({expression})")) == Value::Bool(true)
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, expression: &str) {
        wait_until(what, || self.is(expression));
    }

    pub(crate) fn click(&self, css: &str) {
        self.post(&format!("/element/{}/click", self.element(css)), &json!({}));
    }

    fn element(&self, css: &str) -> String {
        let element = self.post("/element", &json!({"using": "css selector", "value": css}));
        element.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    /// The source of the page as it is now.
    pub(crate) fn source(&self) -> String {
        self.call("GET", &format!("/session/{}/source", self.session), &Value::Null)
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A command of the DevTools protocol.
    pub(crate) fn devtools(&self, command: &str, params: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// What the browser has complained of since it was asked last: errors of scripts, and what the page's policy forbids.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        let messages = entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string());
        messages.collect()
    }

    /// A picture of the whole page, for people, among what the build leaves.
    pub(crate) fn picture(&self, name: &str) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.devtools("Page.captureScreenshot", &params);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(path, base64(picture["data"].as_str().unwrap())).unwrap();
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// A command, and its value.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(2 * BOUND)).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n", self.port);
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all([head, length, body].concat().as_bytes()).unwrap();
        // It may keep the connection, whatever it was asked for.
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "the driver has gone");
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        let mut body = vec![0; length.trim().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver is reaped below and nowhere else, so its number stands for its group and no other.
        let _ = kill_process_group(pid(id(&self.driver)), Signal::KILL);
        let _ = self.driver.wait();
    }
}

fn capabilities(screen: Screen, profile: &Path, trusted_key: Option<&str>) -> Value {
    let profile = profile.join("profile").display().to_string();
    let mut options = json!({
        // The sandbox needs rights that a container has not, and root is refused with it.
        "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--disable-background-networking", "--no-proxy-server", "--window-size=1366,1000",
            format!("--user-data-dir={profile}")],
    });
    if let (Some(key), Some(args)) = (trusted_key, options["args"].as_array_mut()) {
        args.push(format!("--ignore-certificate-errors-spki-list={key}").into());
    }
    if screen == Screen::Phone {
        options["mobileEmulation"] = json!({"deviceMetrics": {"width": 360, "height": 740, "pixelRatio": 2.0, "touch": true, "mobile": true}});
    }
    let always = json!({
        "browserName": "chrome",
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": options,
    });
    json!({"capabilities": {"alwaysMatch": always}})
}

/// Decodes what RFC 4648, section 4, encodes.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in digits.chunks(4) {
        let number =
            four.iter().fold(0u32, |number, digit| number << 6 | u32::from(*digit)) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&number.to_be_bytes()[1..four.len()]);
    }
    bytes
}
