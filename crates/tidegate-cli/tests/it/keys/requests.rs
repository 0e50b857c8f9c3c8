//! `[web]`: what is told of requests, and who may log in.

use super::{Case, LISTEN, World, ask, case, check, post};
use crate::support::{stdout, wait_until};

pub(super) const CASES: &[Case] = &[
    case("web.access_log", "line", "attributes", |world| {
        let record = of_access(world, "/form");
        if record.contains("first_byte_us") { "attributes" } else { "line" }.to_owned()
    }),
    case("web.trusted_proxies", "127.0.0.1", "192.0.2.9", |world| {
        let record = of_access(world, "/trusted");
        ["192.0.2.9", "127.0.0.1"].into_iter().find(|it| record.contains(it)).unwrap().to_owned()
    }),
    case("web.request_id", "none", "abc", |world| {
        ask(world.web(), "test", "/hello", "X-Request-Id: abc\r\n").field("X-Request-Id")
    }),
    case("web.api_session_lifetime", "3600", "60", |world| {
        // The name is taken the second time.
        let registered = post(world.web(), "/api/register", FORM, "user=ada&password=secret").status();
        assert_eq!(registered, if world.is_after { "409" } else { "201" });
        let cookie = post(world.web(), "/api/login", FORM, "user=ada&password=secret").field("Set-Cookie");
        let age = cookie.split("; ").find_map(|part| part.strip_prefix("Max-Age="));
        age.unwrap_or(&cookie).to_owned()
    }),
    case("web.api_sign_window", "refused", "stale", |world| {
        let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - 3600;
        let sign = "0".repeat(64);
        let form = format!("user=eve&time={time}&salt=12345678&sign={sign}");
        error(&post(world.web(), "/api/login", FORM, &form).body())
    }),
    case("web.api_max_failures", "refused", "too-many-failures", |world| {
        let log_in = || error(&post(world.web(), "/api/login", FORM, "user=bob&password=wrong").body());
        assert_eq!(log_in(), "refused");
        log_in()
    }),
    // The last one: what was registered before counts.
    case("web.api_max_registrations", "201", "429", |world| {
        let register = |name: &str| {
            let form = format!("user={name}-{}&password=secret", world.is_after);
            post(world.web(), "/api/register", FORM, &form).status()
        };
        register("carl");
        register("dora")
    }),
];

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[test]
fn requests_are_told_of_and_logins_taken_as_the_keys_say() {
    let web = |rest: &str| format!("{LISTEN}[web]\napi = true\n{rest}");
    let before = web(
        "access_log = \"combined\"\napi_session_lifetime = \"1h\"\napi_sign_window = \"2h\"\napi_max_failures = 100\napi_max_registrations = 0\n",
    );
    // The failure of before counts, too.
    let after = web("access_log = \"json\"\ntrusted_proxies = [\"127.0.0.1\"]\nrequest_id = \"accept\"\n\
         api_session_lifetime = \"1m\"\napi_sign_window = \"1m\"\napi_max_failures = 3\n\
         api_max_registrations = 1\n");
    check(|_| (), &before, &after, CASES);
}

pub(super) const SAMPLE: &[Case] = &[case("web.access_log_sample", "all", "some", |world| {
    let name = if world.is_after { "after" } else { "before" };
    for number in 0..20 {
        ask(world.web(), "test", &format!("/{name}-{number}-"), "");
    }
    // The last one is recorded in either world only when all are, so another record tells that theirs would be there.
    let told = || recorded(world, &format!("/{name}-"));
    if world.is_after {
        wait_until("one is recorded", || told() >= 2);
        if told() <= 4 { "some" } else { "all" }.to_owned()
    } else {
        wait_until("all are recorded", || told() == 20);
        "all".to_owned()
    }
})];

#[test]
fn one_in_so_many_requests_is_recorded() {
    let web = |sample| format!("{LISTEN}[web]\naccess_log = \"combined\"\naccess_log_sample = {sample}\n");
    check(|_| (), &web(1), &web(10), SAMPLE);
}

/// How many records of the access log have this in them.
fn recorded(world: &World, part: &str) -> usize {
    let lines =
        world.server.tidegate(&["log", "tail", "-n", "1000", "--target", "tidegate_web::access", "--json"]);
    stdout(&lines).lines().filter(|line| line.contains(part)).count()
}

/// The record of a request that came through a balancer, or says so.
fn of_access(world: &World, target: &str) -> String {
    let target = format!("{target}-{}", world.is_after);
    ask(world.web(), "test", &target, "X-Forwarded-For: 192.0.2.9\r\n");
    let mut found = None;
    wait_until("it is recorded", || {
        let lines = world.server.tidegate(&["log", "tail", "--target", "tidegate_web::access", "--json"]);
        found = stdout(&lines).lines().find(|line| line.contains(&target)).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// The word of an answer of the API.
fn error(body: &str) -> String {
    body.split('"').nth(3).unwrap_or(body).to_owned()
}
