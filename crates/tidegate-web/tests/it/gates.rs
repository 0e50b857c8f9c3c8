//! Who is let in: by address, by how often he asks, and by name and password.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tempfile::TempDir;
use tidegate_engine::{Backend, Dispatch, EngineConfig, Trigger, Words};
use tidegate_web::{
    Access, LOGIN_LIMIT_TABLES, Networks, REQUEST_LIMIT_WORDS, RequestRate, SiteBuilder, Web, WebBuilder,
    hash_password,
};

use crate::client::{Answer, Client, Server, eventually, get, request};
use crate::sites::{folder, site};

/// Ways in which a loop can work that differ in which thread does what.
pub(crate) fn models() -> [EngineConfig; 4] {
    let default = EngineConfig::default();
    [
        default,
        EngineConfig { dispatch: Dispatch::Pool, ..default },
        EngineConfig {
            dispatch: Dispatch::Reactor,
            backend: Backend::Epoll,
            trigger: Trigger::Oneshot,
            ..default
        },
        EngineConfig {
            dispatch: Dispatch::LeaderFollower,
            backend: Backend::Epoll,
            trigger: Trigger::Oneshot,
            ..default
        },
    ]
}

pub(crate) fn trusting() -> WebBuilder {
    Web::builder().trusted_proxies(Networks::new(["127.0.0.1"]).unwrap())
}

fn from(server: &Server, address: &str) -> Answer {
    server.ask(request("GET", "/", &format!("X-Forwarded-For: {address}\r\n")))
}

#[test]
fn addresses_are_let_in_by_the_longest_prefix() {
    let dir = folder("page");
    let access = Access {
        allow: Networks::new(["10.0.0.0/8", "2001:db8::/32"]).unwrap(),
        deny: Networks::new(["10.1.0.0/16"]).unwrap(),
    };
    let server = Server::start(trusting().site(site(&["*"], &dir).access(access)));
    for (address, status) in
        [("10.0.0.1", 200), ("10.1.0.1", 403), ("192.0.2.1", 403), ("2001:db8::1", 200), ("::1", 403)]
    {
        assert_eq!(from(&server, address).status, status, "{address}");
    }
    assert_eq!(server.get("/").status, 403);
    assert_eq!(server.counter("access_denied"), 4);
    // The connection stays, but for a request with a body, which is not read.
    let mut client = server.connect();
    assert!(!client.ask(get("/")).closes());
    let refused = client.ask(request("POST", "/", "Content-Length: 100\r\n") + "some of it");
    assert_eq!((refused.status, refused.closes()), (403, true));
    client.expect_end();
}

#[test]
fn an_address_that_asks_too_often_is_told_when_to_come_again() {
    let dir = folder("page");
    // So slow that no token comes back while the test runs.
    let rate = RequestRate { per_second: 1, burst: 5 };
    let slow = || site(&["*"], &dir).limit_requests(rate);
    let server = Server::start(trusting().site(slow()));
    // More than could come back in between, on whatever machine: nobody waits here.
    let statuses: Vec<u16> = (0..200).map(|_| from(&server, "192.0.2.1").status).collect();
    assert_eq!(&statuses[..5], [200; 5]);
    let granted = statuses.iter().filter(|status| **status == 200).count();
    assert!(granted < 200 && statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert_eq!(from(&server, "192.0.2.2").status, 200);
    assert_eq!(server.counter("requests_limited"), 200 - granted as u64);
    let limited = (0..200).map(|_| from(&server, "192.0.2.3")).find(|answer| answer.status == 429).unwrap();
    let seconds: u64 = limited.field("retry-after").unwrap().parse().unwrap();
    assert_eq!(seconds, 1);
}

#[test]
fn services_with_one_table_have_one_limit() {
    let dir = folder("page");
    let words: Box<[AtomicU64]> = (0..REQUEST_LIMIT_WORDS).map(|_| AtomicU64::new(0)).collect();
    let table: Arc<dyn Words> = Arc::new(words);
    let rate = RequestRate { per_second: 1, burst: 50 };
    let start = || {
        let site = site(&["*"], &dir).limit_requests(rate);
        Server::start(trusting().site(site).request_limit_tables(vec![Arc::clone(&table)]))
    };
    let (one, other) = (start(), start());
    let granted = |server: &Server| (0..50).filter(|_| from(server, "192.0.2.1").status == 200).count();
    let first = granted(&one);
    assert_eq!(first, 50);
    assert!(granted(&other) < 50);
}

/// A file of users, the folder it is in, and what stands in `Authorization` for `ada:one`.
pub(crate) fn users() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let lines =
        format!("# people\nada:{}\nbob:{}\n", hash_password(b"one").unwrap(), hash_password(b"two").unwrap());
    fs::write(&path, lines).unwrap();
    (dir, path)
}

pub(crate) const ADA: &str = "Authorization: Basic YWRhOm9uZQ==\r\n";
pub(crate) const ADA_WRONG: &str = "Authorization: Basic YWRhOnR3bw==\r\n";
const EVE: &str = "Authorization: Basic ZXZlOm9uZQ==\r\n";

#[test]
fn who_has_no_password_is_asked_for_it() {
    let (_users, path) = users();
    let dir = folder("secret");
    for config in models() {
        let guarded = site(&["*"], &dir).basic_auth("the vault", &path);
        let server = Server::start_with(config, Web::builder().site(guarded));
        let twice = ADA.repeat(2);
        let never = ["", "Authorization: Bearer x\r\n", "Authorization: Basic %%\r\n", &twice];
        for lines in [ADA_WRONG, EVE].into_iter().chain(never) {
            let answer = server.ask(request("GET", "/", lines));
            let asked = answer.field("www-authenticate").map(str::to_owned);
            let expect = "Basic realm=\"the vault\", charset=\"UTF-8\"";
            assert_eq!((answer.status, asked.as_deref()), (401, Some(expect)), "{lines}");
            assert!(!answer.text().contains("secret"));
        }
        assert_eq!(server.ask(request("GET", "/", ADA)).text(), "secret");
        assert_eq!(server.counter("logins_refused"), 2);
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64ct::{Base64, Encoding as _};
    let pair = Base64::encode_string(format!("{user}:{password}").as_bytes());
    format!("Authorization: Basic {pair}\r\n")
}

#[test]
fn who_guesses_from_one_address_keeps_nobody_else_out() {
    let (_users, path) = users();
    let dir = folder("secret");
    for config in models() {
        let guarded = site(&["*"], &dir).basic_auth("r", &path).max_login_failures(1);
        let server = Server::start_with(config, trusting().site(guarded));
        // All are there before the first has its answer, each with a name and a password of its own.
        let mut guessers: Vec<Client> = (0..300).map(|_| server.connect()).collect();
        for (n, guesser) in guessers.iter_mut().enumerate() {
            let login = basic(&format!("user{n}"), "guess");
            guesser.send(request("GET", "/", &format!("X-Forwarded-For: 192.0.2.1\r\n{login}")));
        }
        let other = server.ask(request("GET", "/", &format!("X-Forwarded-For: 192.0.2.2\r\n{ADA}")));
        assert_eq!((other.status, other.text()), (200, "secret"));
        let answers: Vec<Answer> = guessers.iter_mut().map(Client::answer).collect();
        let of = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((of(401), of(429)), (10, 290));
        let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
        let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        // 90, and by how much the loops' ideas of the time differ on a busy machine.
        assert!((1..=900).contains(&seconds) && !refused.closes(), "{seconds}");
        assert_eq!((server.counter("logins_limited"), server.counter("logins_refused")), (290, 10));
        assert_eq!(server.counter("logins_busy"), 0);
        // Also who knows one, at that address, unless it has been asked for lately.
        let ask = |login: &str| {
            server.ask(request("GET", "/", &format!("X-Forwarded-For: 192.0.2.1\r\n{login}"))).status
        };
        assert_eq!((ask(&basic("bob", "two")), ask(ADA)), (429, 200));
    }
}

#[test]
fn one_name_has_its_own_limit_at_each_address() {
    let (_users, path) = users();
    let dir = folder("secret");
    let words = || {
        let words: Box<[AtomicU64]> = (0..REQUEST_LIMIT_WORDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(words) as Arc<dyn Words>
    };
    let tables: Vec<_> = (0..=LOGIN_LIMIT_TABLES).map(|_| words()).collect();
    let start = || {
        let rate = RequestRate { per_second: 1000, burst: 1000 };
        let site = site(&["*"], &dir).limit_requests(rate).basic_auth("r", &path).max_login_failures(3);
        Server::start(trusting().site(site).request_limit_tables(tables.clone()))
    };
    // Two workers with one memory.
    let (one, other) = (start(), start());
    let ask = |server: &Server, address: &str, login: &str| {
        server.ask(request("GET", "/", &format!("X-Forwarded-For: {address}\r\n{login}"))).status
    };
    let wrong: Vec<u16> = [&one, &other, &one, &other, &one]
        .iter()
        .enumerate()
        .map(|(n, server)| ask(server, "192.0.2.1", &basic("ada", &n.to_string())))
        .collect();
    assert_eq!(wrong, [401, 401, 401, 429, 429]);
    assert_eq!(ask(&other, "192.0.2.1", ADA), 429);
    assert_eq!(ask(&other, "192.0.2.1", &basic("bob", "two")), 200);
    assert_eq!(ask(&other, "192.0.2.2", ADA), 200);
    // Who is right before it is too late begins anew.
    let of_one = [basic("ada", "x"), basic("ada", "y"), ADA.to_owned(), basic("ada", "z")];
    let statuses = of_one.map(|login| ask(&one, "192.0.2.3", &login));
    assert_eq!(statuses, [401, 401, 200, 401]);
    let rest = ["1", "2", "3"].map(|guess| ask(&other, "192.0.2.3", &basic("ada", guess)));
    assert_eq!(rest, [401, 401, 429]);
}

#[test]
fn many_connections_of_one_user_are_no_guesses() {
    let (_users, path) = users();
    let dir = folder("secret");
    for config in models() {
        let guarded = site(&["*"], &dir).basic_auth("r", &path).max_login_failures(1);
        let server = Server::start_with(config, Web::builder().site(guarded));
        let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(request("GET", "/", ADA));
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn requests_behind_a_password_are_answered_in_order() {
    let (_users, path) = users();
    let dir = folder("secret");
    for config in models() {
        let guarded = site(&["guarded"], &dir).basic_auth("r", &path);
        let open = site(&["open"], &dir);
        let server = Server::start_with(config, Web::builder().site(guarded).site(open));
        let mut client = server.connect();
        // The first has to be checked while the others wait, one of which has a body.
        let ask = |host: &str, method: &str, lines: &str| {
            format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
        };
        client.send(
            ask("guarded", "GET", ADA)
                + &ask("open", "GET", "")
                + &ask("guarded", "GET", ADA_WRONG)
                + &ask("guarded", "POST", &format!("{ADA}Content-Length: 3\r\n"))
                + "abc"
                + &ask("guarded", "GET", ADA),
        );
        let statuses: Vec<u16> = (0..5).map(|_| client.answer().status).collect();
        assert_eq!(statuses, [200, 200, 401, 405, 200]);
    }
}

#[test]
fn a_password_that_was_right_is_taken_again() {
    let (_users, path) = users();
    let dir = folder("secret");
    let server = Server::start(Web::builder().site(site(&["*"], &dir).basic_auth("r", &path)));
    let mut client = server.connect();
    assert_eq!(client.ask(request("GET", "/", ADA)).status, 200);
    // With the file gone nothing could be checked any more but by what is remembered, and nothing is read again.
    fs::remove_file(&path).unwrap();
    client.send(request("GET", "/", ADA).repeat(300));
    for _ in 0..300 {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(client.ask(request("GET", "/", ADA_WRONG)).status, 401);
}

#[test]
fn a_client_that_goes_away_while_its_password_is_checked_costs_nothing() {
    let (_users, path) = users();
    let dir = folder("secret");
    let server = Server::start(Web::builder().site(site(&["*"], &dir).basic_auth("r", &path)));
    for _ in 0..20 {
        let mut client: Client = server.connect();
        client.send(request("GET", "/", ADA_WRONG));
    }
    assert_eq!(server.ask(request("GET", "/", ADA)).status, 200);
    eventually(|| server.metrics().get(tidegate_engine::ListenerWord::Open) == 0);
}

#[test]
fn a_file_of_users_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let error = |text: &str| {
        fs::write(&path, text).unwrap();
        let site = SiteBuilder::new(["*"]).basic_auth("r", &path);
        Web::builder().site(site).build().unwrap_err().to_string()
    };
    assert!(error("ada:plain\n").contains("users, line 1: no argon2 hash"));
    assert!(error("# nobody\n").contains("has no users"));
    assert!(!error("ada:plain\n").contains("plain"));
}
