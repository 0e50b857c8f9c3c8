//! `[[web.site]]`, and values with other values inside.

use super::*;

#[test]
fn a_site_has_what_it_says_and_nothing_else() {
    let given = Given::file(
        r#"
[web]
trusted_proxies = ["10.0.0.0/8", "unix"]
error_pages = { 404 = "/404.html", 5xx = "/sorry.html" }

[[web.site]]
hosts = ["Example.com.", "*.example.com", "[2001:DB8::1]"]
index = ["start.html"]
redirects = [
  { from = "/old/*", to = "https://example.com/new/*", status = 301 },
  { from = "/a", to = "/b" },
]
headers = { X-Frame-Options = "DENY", "Cache-Control" = "no-store" }
allow = ["192.0.2.0/24"]
limit_rate = "100KiB"
limit_requests = { rate = 10, burst = 20 }
hsts = { max_age = "1d", subdomains = true }

[[web.site]]
"#,
    );
    let config = given.config();
    let [first, second] = &config.web.site[..] else { panic!("{:?}", config.web.site) };
    assert_eq!(first.hosts, ["example.com", "*.example.com", "[2001:db8::1]"]);
    assert_eq!((first.index.as_deref(), &first.root), (Some(&["start.html".to_owned()][..]), &None));
    let statuses: Vec<u16> = first.redirects.iter().map(|redirect| redirect.status).collect();
    assert_eq!(statuses, [301, 308]);
    assert_eq!(first.headers["X-Frame-Options"], "DENY");
    assert_eq!(first.limit_rate.get(), 100 << 10);
    let limit = first.limit_requests.unwrap();
    assert_eq!((limit.rate, limit.burst), (10, 20));
    let hsts = first.hsts.unwrap();
    assert_eq!((hsts.max_age, hsts.subdomains, hsts.preload), (Duration::from_secs(86400), true, false));
    assert_eq!((&second.hosts[..], &second.basic_auth), (&[][..], &None));
    assert_eq!(config.web.error_pages["5xx"], "/sorry.html");

    // What is printed is a configuration, and the same one.
    let printed = config.to_toml().unwrap();
    let again = Given::file(&printed).config();
    assert_eq!(again.web, config.web, "{printed}");
    assert_eq!(Config::from_json(&config.to_json().unwrap()).unwrap(), config);
}

#[test]
fn a_site_says_where_it_is_wrong() {
    check(
        r#"
[[web.site]]
hosts = ["a b", "example.com:80"]
redirects = [{ from = "/a", to = "/b" }, { from = "/c", to = "/d", status = 500 }]
[[web.site]]
listeners = ["web"]
redirects = [{ from = "/a", two = "/b" }]
headers = { "X Y" = "a" }
[[web.site]]
allow = ["10.0.0.1/8"]
hosts = ["c"]
limit_requests = { burst = 1 }
basic_auth = "users"
"#,
        r#"
tidegate.toml:3:10: web.site[0].hosts[0]: "a b": not a host name (allowed: a host name, "*." and a domain, an IP address, or "*")
3 | hosts = ["a b", "example.com:80"]
  |          ^^^^^
tidegate.toml:4:77: web.site[0].redirects[1].status: 500 is out of range (allowed: a number from 301 to 308)
4 | redirects = [{ from = "/a", to = "/b" }, { from = "/c", to = "/d", status = 500 }]
  |                                                                             ^^^
tidegate.toml:7:29: web.site[1].redirects[0]: unknown key "two"; did you mean "to"? (allowed: from, to, status)
7 | redirects = [{ from = "/a", two = "/b" }]
  |                             ^^^
tidegate.toml:8:13: web.site[1].headers: "X Y" is not allowed (allowed: a field name of letters, digits and "-", at most 64)
8 | headers = { "X Y" = "a" }
  |             ^^^^^
tidegate.toml:10:10: web.site[2].allow[0]: "10.0.0.1/8": there are bits behind the prefix; did you mean "10.0.0.0/8"? (allowed: an IP address, a network as "192.0.2.0/24", or "unix")
10 | allow = ["10.0.0.1/8"]
   |          ^^^^^^^^^^^^
tidegate.toml:12:18: web.site[2].limit_requests: "rate" is missing (allowed: rate = a number from 1 to 1000000)
12 | limit_requests = { burst = 1 }
   |                  ^^^^^^^^^^^^^
tidegate.toml:13:14: web.site[2].basic_auth: a string is not allowed (allowed: { realm = "Restricted", users = …, max_failures = 10 })
13 | basic_auth = "users"
   |              ^^^^^^^"#,
    );
}

#[test]
fn what_workers_would_refuse_is_an_error_before_they_start() {
    let given = Given::file(
        r#"
[[web.site]]
root = "nowhere"
listeners = ["web", "admin", "nobody"]
redirects = [{ from = "/a", to = "/b/*" }]
basic_auth = { users = "users" }
[[web.site]]
hosts = ["a.b", "c"]
[[web.site]]
hosts = ["C"]
listeners = ["web"]
[[web.site]]
hosts = ["d"]
headers = { X-A = "b", content-Length = "1" }
"#,
    );
    std::fs::write(given.dir.path().join("users"), "ada:plain\n").unwrap();
    given.refused(
        r#"
tidegate.toml:3:8: web.site[0].root: "DIR/nowhere": No such file or directory (os error 2)
3 | root = "nowhere"
  |        ^^^^^^^^^
tidegate.toml:4:13: web.site[0].listeners: the listener "admin" has the service "admin", not "web"
4 | listeners = ["web", "admin", "nobody"]
  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^
tidegate.toml:4:13: web.site[0].listeners: no listener is named "nobody"
4 | listeners = ["web", "admin", "nobody"]
  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^
tidegate.toml:5:13: web.site[0].redirects[0]: redirect from "/a": its target has a '*' more than it
5 | redirects = [{ from = "/a", to = "/b/*" }]
  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
tidegate.toml:6:14: web.site[0].basic_auth.users: users file DIR/users, line 1: no argon2 hash behind the ":"; expected "name:$argon2id$…", as `tidegate password NAME` prints it
6 | basic_auth = { users = "users" }
  |              ^^^^^^^^^^^^^^^^^^^
tidegate.toml:10:9: web.site[2].hosts: "c" is a host of web.site[1] already, on the listener "web"
10 | hosts = ["C"]
   |         ^^^^^
tidegate.toml:14:11: web.site[3].headers: "content-Length" is the server's own field; leave it out
14 | headers = { X-A = "b", content-Length = "1" }
   |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
}

#[test]
fn a_target_is_not_larger_than_its_head() {
    check_set(
        "web.max_target_bytes=32KiB",
        "--set web.max_target_bytes=32KiB: web.max_target_bytes: \"32KiB\" is more than web.max_head_bytes, which is \"16KiB\"",
    );
    let config = Given::nothing().set("web.max_head_bytes=64KiB").set("web.max_target_bytes=32KiB").config();
    assert_eq!(config.web.max_target_bytes.get(), 32 << 10);
}

#[test]
fn sites_come_from_variables_too() {
    let config = Given::nothing()
        .env("TIDEGATE_WEB_SITE", r#"[{ hosts = ["a.b"], headers = { X = "y" } }]"#)
        .set(r#"web.index=["a.html", "b.html"]"#)
        .config();
    assert_eq!(
        (&config.web.site[0].hosts[..], &config.web.index[..]),
        (&["a.b".to_owned()][..], &["a.html".to_owned(), "b.html".to_owned()][..])
    );
}

#[test]
fn a_field_that_would_be_said_twice_is_an_error_before_the_workers_start() {
    check(
        r#"
[web]
request_id = "new"
[[web.site]]
headers = { "Strict-Transport-Security" = "max-age=1" }
hsts = { max_age = "1d" }
[[web.site]]
hosts = ["a"]
headers = { "Strict-Transport-Security" = "max-age=1", X-Frame-Options = "DENY", x-frame-options = "DENY" }
[[web.site]]
hosts = ["b"]
headers = { "x-request-id" = "1" }
"#,
        r#"
tidegate.toml:5:11: web.site[0].headers: "Strict-Transport-Security" is what `hsts` sets; keep one of them
5 | headers = { "Strict-Transport-Security" = "max-age=1" }
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
tidegate.toml:9:11: web.site[1].headers: "X-Frame-Options" and "x-frame-options" are one field; keep one of them
9 | headers = { "Strict-Transport-Security" = "max-age=1", X-Frame-Options = "DENY", x-frame-options = "DENY" }
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
tidegate.toml:12:11: web.site[2].headers: "x-request-id" is what `web.request_id` sets; keep one of them
12 | headers = { "x-request-id" = "1" }
   |           ^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
}
