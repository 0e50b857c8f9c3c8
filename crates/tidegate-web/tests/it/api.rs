//! The accounts API over a real socket and a real database.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidegate_accounts::{Accounts, DeviceKey, Options, SessionRules, Sessions, SignedLogin};
use tidegate_web::{Networks, Request, Response, Status, Web, get as get_route, session_token};

use crate::client::{Answer, Client, PATIENCE, Server, get, request};

struct Bench {
    dir: tempfile::TempDir,
    rules: SessionRules,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir, rules: SessionRules { max_failures: 3, ..SessionRules::default() } }
    }

    fn with(rules: SessionRules) -> Self {
        Self { rules, ..Self::new() }
    }

    /// A worker of the server: each has its own connections to the one database.
    fn worker(&self) -> Server {
        let url = format!("sqlite:{}", self.dir.path().join("accounts.db").display());
        let options = Options { memory_kib: 8, passes: 1, busy_timeout: PATIENCE, ..Options::default() };
        let accounts = Arc::new(Accounts::open(&url, options).expect("the accounts are opened"));
        let sessions = Sessions::new(accounts, self.rules);
        let (api, mine) = (sessions.clone(), sessions);
        let secret = move |request: &Request<'_>| {
            let found = session_token(request).and_then(|token| mine.find(token).ok().flatten());
            match found {
                Some(session) => Response::new(Status::OK).body(format!("for {}", session.user().name())),
                None => Response::new(Status::UNAUTHORIZED),
            }
        };
        // A balancer that encrypts before us is on this machine.
        let balancer = Networks::new(["127.0.0.1"]).expect("an address");
        let web = Web::builder().trusted_proxies(balancer).accounts_api("/api", &api);
        Server::start(web.route("/secret", get_route(secret).blocking()))
    }
}

fn post(client: &mut Client, path: &str, lines: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let length = body.len();
    let lines = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{lines}");
    client.ask(request("POST", path, &lines) + &body)
}

#[track_caller]
fn check(answer: &Answer, status: u16, error: &str) {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    assert_eq!((answer.status, document["error"].as_str()), (status, Some(error)), "{answer:?}");
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("content-type"), Some("application/json"));
}

fn document(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("a document")
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the end of time")
}

#[test]
fn an_account_is_made_once_by_the_rules() {
    let bench = Bench::new();
    let server = bench.worker();
    let mut client = server.connect();
    let ada = json!({ "user": "ada", "password": "secret" });
    let answer = post(&mut client, "/api/register", "", &ada);
    assert_eq!((answer.status, answer.text()), (201, r#"{"user":"ada"}"#));
    check(&post(&mut client, "/api/register", "", &ada), 409, "name-taken");
    for (form, word) in [
        (json!({ "user": "", "password": "x" }), "a name has 1 to 56 bytes"),
        (json!({ "user": "a\nb", "password": "x" }), "control"),
        (json!({ "user": "bob", "password": "x".repeat(41) }), "a password has 1 to 40 bytes"),
        (json!({ "user": "bob" }), "missing field `password`"),
    ] {
        let answer = post(&mut client, "/api/register", "", &form);
        check(&answer, 422, "invalid");
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n";
    assert_eq!(client.ask(request("POST", "/api/register", form) + "username=bob&password=pass").status, 201);
    // As U+FFFD it would be a name like any other.
    let answer = client.ask(request("POST", "/api/register", form) + "username=b%ff&password=pas");
    check(&answer, 400, "invalid");
    assert!(answer.text().contains("pair 1 of the form is not UTF-8"), "{}", answer.text());
    check(&client.ask(request("POST", "/api/register", "Content-Length: 2\r\n") + "{}"), 415, "media-type");
    check(
        &client.ask(request("POST", "/api/register", "Content-Type: application/json\r\n")),
        400,
        "invalid",
    );
    assert_eq!(client.ask(get("/api/register")).status, 405);
    assert_eq!(client.ask(request("POST", "/api/register", "Content-Length: 5000\r\n")).status, 413);
}

#[test]
fn a_page_of_another_origin_gets_nobody_in_or_out_whatever_its_browser_says() {
    let bench = Bench::new();
    let server = bench.worker();
    let mut client = server.connect();
    let ada = json!({ "user": "ada", "password": "secret" });
    assert_eq!(post(&mut client, "/api/register", "", &ada).status, 201);
    // The host of these requests is `test`.
    for lines in [
        "Origin: http://evil.test\r\n",
        "Origin: http://test:8081\r\n",
        "Origin: http://a.test\r\n",
        "Origin: http://test.evil\r\n",
        "Origin: http://test@evil.test\r\n",
        "Origin: ftp://test\r\n",
        "Origin: null\r\n",
        "Origin: \r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\nOrigin: http://test\r\n",
        "Sec-Fetch-Site: whatever\r\n",
    ] {
        for path in ["/api/login", "/api/logout", "/api/register", "/api/key"] {
            let answer = post(&mut client, path, lines, &ada);
            check(&answer, 403, "cross-site");
            assert_eq!(answer.field("set-cookie"), None, "{lines}");
        }
    }
    for lines in [
        "",
        "Origin: http://test\r\n",
        "Origin: https://TEST.\r\n",
        "Origin: http://test:80\r\n",
        "Origin: http://elsewhere\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(post(&mut client, "/api/login", lines, &ada).status, 200, "{lines}");
    }
}

#[test]
fn a_browser_stays_logged_in_by_its_cookie_on_every_worker() {
    let bench = Bench::new();
    let (one, two) = (bench.worker(), bench.worker());
    let (mut first, mut second) = (one.connect(), two.connect());
    let ada = json!({ "user": "ada", "password": "secret" });
    assert_eq!(post(&mut first, "/api/register", "", &ada).status, 201);
    let answer = post(&mut first, "/api/login", "", &ada);
    let session = document(&answer);
    assert_eq!((&session["user"], session.get("token")), (&json!("ada"), None));
    assert!(session["expires_at"].as_i64().is_some_and(|end| end > now() + 7 * 24 * 3600 - 60));
    let cookie = answer.field("set-cookie").expect("a cookie").to_owned();
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Max-Age=604800; Path=/; HttpOnly; SameSite=Lax");

    let lines = format!("Cookie: theme=dark; {pair}\r\n");
    assert_eq!(document(&second.ask(request("GET", "/api/me", &lines)))["user"], "ada");
    assert_eq!(second.ask(request("GET", "/secret", &lines)).text(), "for ada");
    check(&second.ask(get("/api/me")), 401, "no-session");
    assert_eq!(second.ask(get("/api/me")).field("www-authenticate"), Some("Bearer"));

    let foreign = format!("{lines}Sec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n");
    check(&second.ask(request("POST", "/api/logout", &foreign)), 403, "cross-site");
    let answer = second.ask(request("POST", "/api/logout", &lines));
    assert_eq!(answer.status, 204);
    let cookie = answer.field("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("tidegate_session=; Max-Age=0;") && cookie.contains("Path=/"), "{cookie}");
    check(&first.ask(request("GET", "/api/me", &lines)), 401, "no-session");
    assert_eq!(first.ask(request("GET", "/secret", &lines)).status, 401);
    assert_eq!(first.ask(request("POST", "/api/logout", "")).status, 204, "nobody is logged in");
}

#[test]
fn where_somebody_encrypts_a_cookie_is_of_a_kind_that_no_neighbour_can_set() {
    const TLS: &str = "X-Forwarded-Proto: https\r\n";
    let bench = Bench::new();
    let server = bench.worker();
    let mut client = server.connect();
    let ada = json!({ "user": "ada", "password": "secret" });
    assert_eq!(post(&mut client, "/api/register", TLS, &ada).status, 201);
    let answer = post(&mut client, "/api/login", TLS, &ada);
    let cookie = answer.field("set-cookie").expect("a cookie");
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Max-Age=604800; Path=/; HttpOnly; SameSite=Lax; Secure");
    let token = pair.strip_prefix("__Host-tidegate_session=").expect("the prefix");

    let me = |lines: &str| server.ask(request("GET", "/api/me", lines));
    assert_eq!(document(&me(&format!("{TLS}Cookie: {pair}\r\n")))["user"], "ada");
    // What somebody else may have set is not looked at, neither alone nor before.
    check(&me(&format!("{TLS}Cookie: tidegate_session={token}\r\n")), 401, "no-session");
    let others = format!("{TLS}Cookie: tidegate_session={}; {pair}\r\n", "0".repeat(64));
    assert_eq!(document(&me(&others))["user"], "ada");
    check(&me(&format!("Cookie: {pair}\r\n")), 401, "no-session");

    let answer = client.ask(request("POST", "/api/logout", &format!("{TLS}Cookie: {pair}\r\n")));
    let cookie = answer.field("set-cookie").expect("a cookie");
    assert!(
        cookie.starts_with("__Host-tidegate_session=; Max-Age=0;") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    check(&me(&format!("{TLS}Cookie: {pair}\r\n")), 401, "no-session");
}

#[test]
fn a_program_stays_logged_in_by_its_token_also_after_a_restart() {
    let bench = Bench::new();
    let server = bench.worker();
    let mut client = server.connect();
    let ada = json!({ "user": "ada", "password": "secret", "session": "bearer" });
    assert_eq!(post(&mut client, "/api/register", "", &ada).status, 201);
    let answer = post(&mut client, "/api/login", "", &ada);
    assert_eq!(answer.field("set-cookie"), None);
    let session = document(&answer);
    assert_eq!(session["token_type"], "Bearer");
    let lines = format!("Authorization: bearer {}\r\n", session["token"].as_str().expect("a token"));
    drop(client);
    drop(server);
    let server = bench.worker();
    assert_eq!(document(&server.ask(request("GET", "/api/me", &lines)))["user"], "ada");
    let wrong = format!("Authorization: Bearer {}\r\n", "0".repeat(64));
    check(&server.ask(request("GET", "/api/me", &wrong)), 401, "no-session");
    check(&server.ask(request("GET", "/api/me", "Authorization: Bearer x\r\n")), 401, "no-session");
}

#[test]
fn a_device_logs_in_with_a_signature_that_is_good_once() {
    let bench = Bench::new();
    let (one, two) = (bench.worker(), bench.worker());
    let (mut first, mut second) = (one.connect(), two.connect());
    let ada = json!({ "user": "ada", "password": "secret", "session": "bearer" });
    post(&mut first, "/api/register", "", &ada);
    let session = document(&post(&mut first, "/api/login", "", &ada));
    let lines = format!("Authorization: Bearer {}\r\n", session["token"].as_str().expect("a token"));
    let key = document(&first.ask(request("POST", "/api/key", &lines)));
    let key = DeviceKey::parse(key["key"].as_str().expect("a key").as_bytes()).expect("a key");

    let login = |time: i64, salt: &str, key: &DeviceKey| {
        let sign = SignedLogin::sign(key, time, salt, "ada");
        json!({ "time": time, "salt": salt, "user": "ada", "sign": sign })
    };
    let form = login(now(), "device-salt-1", &key);
    let session = document(&post(&mut first, "/api/login", "", &form));
    let bearer = format!("Authorization: Bearer {}\r\n", session["token"].as_str().expect("a token"));
    assert_eq!(document(&second.ask(request("GET", "/api/me", &bearer)))["user"], "ada");
    check(&post(&mut second, "/api/login", "", &form), 401, "replayed");
    check(&post(&mut second, "/api/login", "", &login(now() - 400, "device-salt-2", &key)), 401, "stale");
    check(&post(&mut second, "/api/login", "", &login(now() + 400, "device-salt-2", &key)), 401, "stale");

    let mut forged = login(now(), "device-salt-3", &key);
    forged["user"] = "bob".into();
    check(&post(&mut second, "/api/login", "", &forged), 401, "refused");
    let mut broken = login(now(), "device-salt-4", &key);
    broken["sign"] = "00".into();
    check(&post(&mut second, "/api/login", "", &broken), 422, "invalid");
    check(&post(&mut second, "/api/login", "", &login(now(), "short", &key)), 422, "invalid");

    let newer = document(&second.ask(request("POST", "/api/key", &lines)));
    let newer = DeviceKey::parse(newer["key"].as_str().expect("a key").as_bytes()).expect("a key");
    check(&post(&mut first, "/api/login", "", &login(now(), "device-salt-5", &key)), 401, "refused");
    let mut as_form = format!("session=cookie&user=ada&salt=device-salt-6&time={}", now());
    let sign = SignedLogin::sign(&newer, now(), "device-salt-6", "ada");
    as_form += &format!("&sign={sign}");
    let head =
        format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", as_form.len());
    let answer = first.ask(request("POST", "/api/login", &head) + &as_form);
    assert!(answer.status == 200 && answer.field("set-cookie").is_some(), "{answer:?}");
}

#[test]
fn failures_are_limited_for_all_workers_together() {
    let bench = Bench::new();
    let workers = [bench.worker(), bench.worker()];
    let mut clients = workers.each_ref().map(Server::connect);
    let form = |user: &str, password: &str| json!({ "user": user, "password": password });
    assert_eq!(post(&mut clients[0], "/api/register", "", &form("ada", "secret")).status, 201);
    for attempt in 0..3 {
        let answer = post(&mut clients[attempt % 2], "/api/login", "", &form("ada", "guess"));
        check(&answer, 401, "refused");
    }
    for client in &mut clients {
        let answer = post(client, "/api/login", "", &form("ada", "secret"));
        check(&answer, 429, "too-many-failures");
        let wait: u64 = answer.field("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=900).contains(&wait));
    }
    check(&post(&mut clients[0], "/api/login", "", &form("nobody", "secret")), 401, "refused");
    check(&post(&mut clients[0], "/api/login", "", &form("x", &"y".repeat(41))), 401, "refused");
    check(&post(&mut clients[0], "/api/login", "", &json!({ "user": "ada" })), 422, "invalid");
}

#[test]
fn a_session_ends_by_itself() {
    let mut bench = Bench::new();
    bench.rules.lifetime = Duration::from_secs(1);
    let server = bench.worker();
    let mut client = server.connect();
    let ada = json!({ "user": "ada", "password": "secret", "session": "bearer" });
    post(&mut client, "/api/register", "", &ada);
    let session = document(&post(&mut client, "/api/login", "", &ada));
    let lines = format!("Authorization: Bearer {}\r\n", session["token"].as_str().expect("a token"));
    crate::client::eventually(|| client.ask(request("GET", "/api/me", &lines)).status == 401);
    assert!(now() >= session["expires_at"].as_i64().expect("a time"));
}

#[test]
fn an_address_may_ask_for_so_many_accounts() {
    let bench = Bench::with(SessionRules { max_registrations: 3, ..SessionRules::default() });
    // The count is the server's, not a worker's.
    let servers = [bench.worker(), bench.worker()];
    let register = |n: usize| {
        let form = json!({ "user": format!("user{n}"), "password": "secret" });
        post(&mut servers[n % 2].connect(), "/api/register", "", &form)
    };
    assert_eq!((register(0).status, register(1).status), (201, 201));
    check(&register(1), 409, "name-taken");
    let refused = register(2);
    check(&refused, 429, "too-many-registrations");
    let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&seconds));
    // A form that is none costs nothing, and logging in is another matter.
    let form = json!({ "user": "user0", "password": "secret" });
    assert_eq!(post(&mut servers[1].connect(), "/api/login", "", &form).status, 200);
}
