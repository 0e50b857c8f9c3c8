//! Sites, from the file to the client, with workers that share what they count.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use crate::http::{Answer, Connection};
use crate::log::records;
use crate::processes::Exit;
use crate::support::{Server, Setup, TIDEGATE, clean, output_of, stderr, stdout, tidegate_in, wait_until};

/// A folder with a configuration of these lines behind the listeners.
fn configured(rest: &str) -> TempDir {
    let dir = tempdir().unwrap();
    for (name, text) in [("a", "site a"), ("b", "site b")] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("index.html"), text).unwrap();
    }
    let file = format!(
        "data_dir = \"data\"\n[process]\nworkers = 2\n\
         [[listen]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nservice = \"web\"\n\
         [[listen]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\nservice = \"redirect\"\n{rest}"
    );
    fs::write(dir.path().join("tidegate.toml"), file).unwrap();
    dir
}

/// One request on a connection of its own.
fn ask(address: SocketAddr, host: &str, path: &str, lines: &str) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"));
    connection.answer().unwrap()
}

fn field<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let mut lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A line for a file of users, made by the command.
fn password(dir: &TempDir, user: &str, password: &str) -> String {
    let mut command = Command::new(TIDEGATE);
    clean(&mut command, dir.path()).args(["password", user]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{password}").unwrap();
    drop(writer);
    let output = output_of(command.stdin(Stdio::from(reader)));
    assert!(output.status.success(), "{output:?}");
    stdout(&output).to_owned()
}

#[test]
fn a_password_becomes_a_line_of_a_file_of_users() {
    let dir = tempdir().unwrap();
    let line = password(&dir, "ada", "correct horse");
    assert!(line.starts_with("ada:$argon2id$v=19$m=19456,t=2,p=1$") && line.ends_with('\n'), "{line}");
    assert_ne!(line, password(&dir, "ada", "correct horse"));
    for user in ["", "a:b", "#a"] {
        let output = tidegate_in(dir.path(), ["password", user]);
        assert_eq!(output.status.code(), Some(1), "{user}");
        assert!(stderr(&output).starts_with("tidegate: "), "{output:?}");
    }
    // Nothing on standard input.
    let output = tidegate_in(dir.path(), ["password", "ada"]);
    assert!(stderr(&output).contains("no password"), "{output:?}");
}

#[test]
fn sites_answer_under_their_names_and_everything_else_goes_to_https() {
    let dir = configured(
        "[web]\nhttps_port = 8443\n\
         [[web.site]]\nhosts = [\"a.test\"]\nroot = \"a\"\nheaders = { X-Site = \"a\" }\n\
         redirects = [{ from = \"/old/*\", to = \"/new/*\", status = 301 }]\n\
         [[web.site]]\nhosts = [\"*.b.test\"]\nroot = \"b\"\nallow = [\"192.0.2.0/24\"]\n",
    );
    let server = Setup::file(&dir).start();
    let web = server.address("web");
    let answer = ask(web, "A.test:1", "/", "");
    assert_eq!((&*answer.body, field(&answer, "X-Site")), ("site a", Some("a")));
    let moved = ask(web, "a.test", "/old/x?y", "");
    assert_eq!((moved.status, field(&moved, "Location")), (301, Some("/new/x?y")));
    assert_eq!(ask(web, "x.b.test", "/", "").status, 403);
    let answer = ask(web, "other.test", "/hello", "");
    assert_eq!((&*answer.body, field(&answer, "X-Site")), ("Hello, World!", None));
    let plain = ask(server.address("plain"), "a.test", "/p?q", "");
    assert_eq!((plain.status, field(&plain, "Location")), (308, Some("https://a.test:8443/p?q")));
}

#[test]
fn a_file_of_users_is_read_again_by_a_reload_and_a_wrong_one_refuses_it() {
    let dir =
        configured("[[web.site]]\nhosts = [\"a.test\"]\nroot = \"a\"\nbasic_auth = { users = \"users\" }\n");
    let users = dir.path().join("users");
    fs::write(&users, password(&dir, "ada", "one")).unwrap();
    let server = Setup::file(&dir).start();
    let status = |credentials: &str| {
        ask(server.address("web"), "a.test", "/", &format!("Authorization: Basic {credentials}\r\n")).status
    };
    let (ada, bob) = ("YWRhOm9uZQ==", "Ym9iOnR3bw==");
    assert_eq!((status(ada), status(bob)), (200, 401));
    fs::write(&users, "bob:plain\n").unwrap();
    let refused = server.tidegate(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("users, line 1: no argon2 hash"), "{refused:?}");
    assert_eq!((status(ada), status(bob)), (200, 401));
    fs::write(&users, password(&dir, "bob", "two")).unwrap();
    assert!(server.tidegate(&["reload"]).status.success());
    // What comes to a worker that is just being retired is still served by the file before.
    wait_until("the new file counts", || (status(ada), status(bob)) == (401, 200));
    assert_eq!(server.tidegate(&["check"]).status.code(), Some(0));
}

#[test]
fn a_limit_of_requests_holds_over_all_workers() {
    let dir = configured(
        "[web]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [[web.site]]\nroot = \"a\"\nlimit_requests = { rate = 1, burst = 50 }\n",
    );
    let server = Setup::file(&dir).start();
    let limited = |server: &Server, address: &str| {
        let lines = format!("X-Forwarded-For: {address}\r\n");
        // Far more than come back meanwhile, each on a connection that some worker gets.
        (0..200).filter(|_| ask(server.address("web"), "a.test", "/", &lines).status == 429).count()
    };
    // Two buckets would let 100 in at once; one does that only when the requests take most of a minute.
    let refused = limited(&server, "192.0.2.1");
    assert!((105..=150).contains(&refused), "{refused} of 200");
    assert!(limited(&server, "192.0.2.2") <= 150, "another address has a bucket of its own");
}

#[test]
fn requests_are_recorded_whatever_the_level_is() {
    let dir =
        configured("[web]\naccess_log = \"combined\"\nrequest_id = \"accept\"\n[log]\nlevel = \"error\"\n");
    let server = Setup::file(&dir).start();
    let answer = ask(server.address("web"), "a.test", "/hello?x", "User-Agent: it\r\nX-Request-Id: abc\r\n");
    assert_eq!(field(&answer, "X-Request-Id"), Some("abc"));
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    let records = records(&server);
    let of_access: Vec<_> = records.iter().filter(|record| record.target == "tidegate_web::access").collect();
    let [record] = &of_access[..] else { panic!("{records:?}") };
    assert!(record.body.starts_with("127.0.0.1 - - [") && record.resource.process.starts_with("worker "));
    assert!(record.body.ends_with("] \"GET /hello?x HTTP/1.1\" 200 13 \"-\" \"it\""), "{}", record.body);
    let lines = server.tidegate(&["log", "tail", "--target", "tidegate_web::access", "--body"]);
    assert_eq!(stdout(&lines), format!("{}\n", record.body));
}

#[test]
fn wrong_passwords_and_registrations_are_limited_over_all_workers() {
    let dir = configured(
        "[web]\ntrusted_proxies = [\"127.0.0.1\"]\napi = true\napi_max_registrations = 2\n\
         [[web.site]]\nhosts = [\"b.test\"]\nroot = \"b\"\nlimit_requests = { rate = 1000, burst = 1000 }\n\
         [[web.site]]\nhosts = [\"a.test\"]\nroot = \"a\"\n\
         basic_auth = { users = \"users\", max_failures = 3 }\n",
    );
    fs::write(dir.path().join("users"), password(&dir, "ada", "one")).unwrap();
    let server = Setup::file(&dir).start();
    let web = server.address("web");
    let from = |address: &str, login: &str| {
        let lines = format!("X-Forwarded-For: {address}\r\nAuthorization: Basic {login}\r\n");
        ask(web, "a.test", "/", &lines)
    };
    // ada:0 to ada:7
    let guesses =
        ["YWRhOjA=", "YWRhOjE=", "YWRhOjI=", "YWRhOjM=", "YWRhOjQ=", "YWRhOjU=", "YWRhOjY=", "YWRhOjc="];
    let answers = guesses.map(|guess| from("192.0.2.1", guess));
    let statuses = answers.each_ref().map(|answer| answer.status);
    assert_eq!(statuses, [401, 401, 401, 429, 429, 429, 429, 429]);
    let seconds: u64 = field(&answers[3], "retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&seconds), "{seconds}");
    assert_eq!(from("192.0.2.1", "YWRhOm9uZQ==").status, 429, "also who is right, for now");
    assert_eq!(from("192.0.2.2", "YWRhOm9uZQ==").status, 200);

    let register = |address: &str, user: &str| {
        let body = format!("user={user}&password=secret");
        let mut connection = Connection::open(web);
        connection.send(&format!(
            "POST /api/register HTTP/1.1\r\nHost: other\r\nX-Forwarded-For: {address}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        ));
        connection.answer().unwrap().status
    };
    let statuses = ["ada", "bob", "eve", "joe"].map(|user| register("192.0.2.1", user));
    assert_eq!(statuses, [201, 201, 429, 429]);
    assert_eq!(register("192.0.2.2", "eve"), 201);
}
