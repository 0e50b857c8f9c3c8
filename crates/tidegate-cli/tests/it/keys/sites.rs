//! `[[web.site]]` and `[[web.respond]]`.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::files::folder;
use super::{Case, LISTEN, World, ask, case, check, connect, hear};
use crate::support::BOUND;

pub(super) const CASES: &[Case] = &[
    case("web.site.hosts", "base", "two", |world| ask(world.web(), "new.test", "/which.txt", "").body()),
    case("web.site.listeners", "one", "base", |world| {
        ask(world.server.address("other"), "site.test", "/which.txt", "").body()
    }),
    case("web.site.root", "one", "two", |world| ask(world.web(), "site.test", "/which.txt", "").body()),
    case("web.site.index", "index", "home", |world| ask(world.web(), "site.test", "/", "").body()),
    case("web.site.try_files", "404", "200", |world| ask(world.web(), "site.test", "/home", "").status()),
    case("web.site.autoindex", "404", "200", |world| ask(world.web(), "site.test", "/list/", "").status()),
    case("web.site.cache_control", "none", "max-age=7", |world| {
        ask(world.web(), "site.test", "/which.txt", "").field("Cache-Control")
    }),
    case("web.site.cache_control.files", "none", "none", |world| {
        ask(world.web(), "site.test", "/big.css", "").field("Cache-Control")
    }),
    case("web.site.cache_control.value", "none", "no-cache", |world| {
        ask(world.web(), "site.test", "/home.html", "").field("Cache-Control")
    }),
    case("web.site.error_pages", "false", "true", |world| {
        (ask(world.web(), "site.test", "/missing", "").body() == "sorry").to_string()
    }),
    case("web.site.compress", "gzip", "none", |world| {
        ask(world.web(), "site.test", "/big.css", GZIP).field("Content-Encoding")
    }),
    case("web.site.precompressed", "false", "true", |world| {
        (ask(world.web(), "site.test", "/small.txt", GZIP).body() == "as it is").to_string()
    }),
    case("web.site.dot_files", "404", "200", |world| ask(world.web(), "site.test", "/.hidden", "").status()),
    case("web.site.redirects", "404", "308", |world| ask(world.web(), "site.test", "/moved", "").status()),
    case("web.site.redirects.from", "404", "301", |world| {
        ask(world.web(), "site.test", "/old/a", "").status()
    }),
    case("web.site.redirects.to", "none", "/new/a?q", |world| {
        ask(world.web(), "site.test", "/old/a?q", "").field("Location")
    }),
    case("web.site.redirects.status", "404", "307", |world| {
        ask(world.web(), "site.test", "/for-now", "").status()
    }),
    case("web.site.headers", "none", "yes", |world| {
        ask(world.web(), "site.test", "/which.txt", "").field("X-Site")
    }),
    case("web.site.allow", "200", "403", |world| ask(world.web(), "allow.test", "/", "").status()),
    case("web.site.deny", "200", "403", |world| ask(world.web(), "deny.test", "/", "").status()),
    case("web.site.basic_auth", "200", "401", |world| ask(world.web(), "auth.test", "/", "").status()),
    case("web.site.basic_auth.realm", "none", "Basic realm=\"here\", charset=\"UTF-8\"", |world| {
        ask(world.web(), "auth.test", "/", "").field("WWW-Authenticate")
    }),
    case("web.site.basic_auth.users", "200, 200", "200, 401", |world| {
        let status = |credentials: &str| {
            ask(world.web(), "auth.test", "/", &format!("Authorization: Basic {credentials}\r\n")).status()
        };
        // ada:one and ada:two.
        format!("{}, {}", status("YWRhOm9uZQ=="), status("YWRhOnR3bw=="))
    }),
    case("web.site.basic_auth.max_failures", "200, 200", "401, 429", |world| {
        let status = || ask(world.web(), "guess.test", "/", "Authorization: Basic YWRhOnR3bw==\r\n").status();
        format!("{}, {}", status(), status())
    }),
    case("web.site.limit_rate", "at any rate", "slowly", |world| {
        let begin = Instant::now();
        assert_eq!(ask(world.web(), "slow.test", "/a.bin", "").body().len(), 200 << 10);
        // At 200 KiB/s it takes a second, but for the first piece. No machine makes it faster than it may be.
        let is_slow = world.is_after && begin.elapsed() > Duration::from_millis(600);
        if is_slow { "slowly" } else { "at any rate" }.to_owned()
    }),
    case("web.site.limit_requests", "30", "few", |world| served(world, "seldom.test")),
    case("web.site.limit_requests.rate", "30", "30", |world| {
        // The bucket of one is full again for the next request.
        let asked = (0..30).map(|_| ask(world.web(), "often.test", "/", "").status());
        asked.filter(|status| status == "200").count().to_string()
    }),
    case("web.site.limit_requests.burst", "30", "30", |world| served(world, "burst.test")),
    case("web.site.hsts", "none", "max-age=31536000", |world| hsts(world, "hsts.test")),
    case("web.site.hsts.max_age", "none", "max-age=60", |world| hsts(world, "age.test")),
    case("web.site.hsts.subdomains", "none", "max-age=31536000; includeSubDomains", |world| {
        hsts(world, "below.test")
    }),
    case("web.site.hsts.preload", "none", "max-age=31536000; includeSubDomains; preload", |world| {
        hsts(world, "preload.test")
    }),
    case("web.respond.path", "404", "200", |world| ask(world.web(), "test", "/there", "").status()),
    case("web.respond.status", "200", "418", |world| ask(world.web(), "test", "/pot", "").status()),
    case("web.respond.body", "coffee", "tea", |world| ask(world.web(), "test", "/pot", "").body()),
    case("web.respond.content_type", "text/plain; charset=utf-8", "text/x-tea", |world| {
        ask(world.web(), "test", "/pot", "").field("Content-Type")
    }),
];

const GZIP: &str = "Accept-Encoding: gzip\r\n";
/// What `tidegate password ada` printed for "one".
const USERS: &str =
    "ada:$argon2id$v=19$m=19456,t=2,p=1$yeeyVkCHwzP8LkJo/VozJQ$cc7543xNpCxjH4bmPM9C9zkzCAn1YDE/EbW7t8lQbwc\n";

const BEFORE: &str = r#"
[[web.respond]]
path = "/pot"
body = "coffee"
[[web.site]]
hosts = ["site.test", "old.test"]
root = "one"
[[web.site]]
hosts = ["allow.test", "deny.test", "auth.test", "guess.test", "slow.test", "seldom.test", "often.test", "burst.test"]
[[web.site]]
hosts = ["hsts.test", "age.test", "below.test", "preload.test"]
"#;

const AFTER: &str = r#"
[[web.respond]]
path = "/there"
[[web.respond]]
path = "/pot"
status = 418
body = "tea"
content_type = "text/x-tea"
[[web.site]]
hosts = ["site.test", "new.test"]
listeners = ["web"]
root = "two"
index = ["home.html"]
try_files = ["$uri", "$uri/", "$uri.html"]
autoindex = true
cache_control = [{ files = "*.txt", value = "max-age=7" }, { files = "/home.*", value = "no-cache" }]
error_pages = { 404 = "/sorry.html" }
compress = false
precompressed = true
dot_files = true
redirects = [
    { from = "/moved", to = "/" },
    { from = "/old/*", to = "/new/*", status = 301 },
    { from = "/for-now", to = "/", status = 307 },
]
headers = { X-Site = "yes" }
[[web.site]]
hosts = ["allow.test"]
allow = ["192.0.2.0/24"]
[[web.site]]
hosts = ["deny.test"]
deny = ["127.0.0.0/8"]
[[web.site]]
hosts = ["auth.test"]
basic_auth = { realm = "here", users = "users" }
[[web.site]]
hosts = ["guess.test"]
basic_auth = { users = "users", max_failures = 1 }
[[web.site]]
hosts = ["slow.test"]
limit_rate = "200KiB"
[[web.site]]
hosts = ["seldom.test"]
limit_requests = { rate = 1 }
[[web.site]]
hosts = ["often.test"]
limit_requests = { rate = 1000000, burst = 1 }
[[web.site]]
hosts = ["burst.test"]
limit_requests = { rate = 1, burst = 30 }
[[web.site]]
hosts = ["hsts.test"]
hsts = {}
[[web.site]]
hosts = ["age.test"]
hsts = { max_age = "60s" }
[[web.site]]
hosts = ["below.test"]
hsts = { subdomains = true }
[[web.site]]
hosts = ["preload.test"]
hsts = { subdomains = true, preload = true }
"#;

#[test]
fn sites_and_answers_are_what_the_keys_say() {
    let common = format!(
        "{LISTEN}[[listen]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\nservice = \"web\"\n         [web]\nroot = \"base\"\ntrusted_proxies = [\"127.0.0.1\"]\n"
    );
    let prepare = |dir: &std::path::Path| {
        for name in ["base", "one", "two"] {
            folder(&dir.join(name), name);
        }
        fs::write(dir.join("users"), USERS).unwrap();
    };
    check(prepare, &format!("{common}{BEFORE}"), &format!("{common}{AFTER}"), CASES);
}

/// How many of thirty requests that come at once are served.
fn served(world: &World, host: &str) -> String {
    let mut stream = connect(world.web());
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").repeat(29);
    let last = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{request}{last}").as_bytes()).unwrap();
    let heard = hear(&mut stream, BOUND);
    let (served, limited) = (heard.count("200"), heard.count("429"));
    assert_eq!(served + limited, 30);
    // One, and another for each second that it took.
    if served < 25 { "few".to_owned() } else { served.to_string() }
}

/// What is told over TLS, which a balancer has ended.
fn hsts(world: &World, host: &str) -> String {
    ask(world.web(), host, "/", "X-Forwarded-Proto: https\r\n").field("Strict-Transport-Security")
}
