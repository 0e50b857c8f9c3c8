//! Listeners: names, addresses, services.

use super::*;

/// A file of one listener named `a`, of which the values are given.
fn listener(address: &str, service: &str) -> String {
    format!("[[listen]]\nname = \"a\"\naddress = \"{address}\"\nservice = \"{service}\"\n")
}

#[test]
fn address_that_is_none() {
    for (address, near) in [
        ("localhost:80", "; did you mean \"127.0.0.1:80\"?"),
        (":80", "; did you mean \"0.0.0.0:80\"?"),
        ("*:80", "; did you mean \"0.0.0.0:80\"?"),
        ("8080", "; did you mean \"127.0.0.1:8080\"?"),
        ("::1:80", "; did you mean \"[::1]:80\"?"),
        ("127.0.0.1", ""),
        ("127.0.0.1:65536", ""),
        ("example.org:80", ""),
        ("", ""),
        ("udp:localhost:7", "; did you mean \"udp:127.0.0.1:7\"?"),
        ("udp:127.0.0.1", ""),
    ] {
        let carets = "^".repeat(address.len() + 2);
        check(
            &listener(address, "web"),
            &format!(
                "
tidegate.toml:3:11: listen[0].address: \"{address}\": not an address{near} (allowed: \"IP:port\", \"[IPv6]:port\", \"unix:/path\", \"udp:IP:port\" or \"unixgram:/path\")
3 | address = \"{address}\"
  |           {carets}"
            ),
        );
    }
}

#[test]
fn datagrams_have_services_and_options_of_their_own() {
    for service in ["web", "gateway", "admin"] {
        check(
            &listener("udp:127.0.0.1:7000", service),
            &format!(
                "
tidegate.toml:4:11: listen[0].service: \"{service}\" serves connections, and the address is one of datagrams
4 | service = \"{service}\"
  |           {}",
                "^".repeat(service.len() + 2)
            ),
        );
    }
    check(
        &format!("{}backlog = 7\n", listener("unixgram:/run/s", "echo")),
        "
tidegate.toml:5:11: listen[0].backlog: 7 has no effect: it is an option of connections, and the address is one of datagrams
5 | backlog = 7
  |           ^",
    );
    check(
        &listener("udp:224.0.0.1:7", "echo"),
        "
tidegate.toml:3:11: listen[0].address: \"udp:224.0.0.1:7\": an address of many machines (allowed: \"IP:port\", \"[IPv6]:port\", \"unix:/path\", \"udp:IP:port\" or \"unixgram:/path\")
3 | address = \"udp:224.0.0.1:7\"
  |           ^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn service_that_is_unknown() {
    check(
        &listener("127.0.0.1:1", "wep"),
        "
tidegate.toml:4:11: listen[0].service: unknown value \"wep\"; did you mean \"web\"? (allowed: \"web\", \"redirect\", \"gateway\", \"admin\", \"echo\", \"discard\", \"daytime\" or \"chargen\")
4 | service = \"wep\"
  |           ^^^^^",
    );
}

#[test]
fn name_that_is_none() {
    check(
        "[[listen]]\nname = \"My Web\"\naddress = \"127.0.0.1:1\"\nservice = \"web\"\n",
        "
tidegate.toml:2:8: listen[0].name: \"My Web\" is not allowed (allowed: 1 to 32 of a-z, 0-9 and \"-\")
2 | name = \"My Web\"
  |        ^^^^^^^^",
    );
}

#[test]
fn listener_without_what_it_needs() {
    check(
        "\n[[listen]]\naddress = \"127.0.0.1:1\"\n",
        "
tidegate.toml:2:1: listen[0].name: missing (allowed: 1 to 32 of a-z, 0-9 and \"-\")
2 | [[listen]]
  | ^^^^^^^^^^
tidegate.toml:2:1: listen[0].service: missing (allowed: \"web\", \"redirect\", \"gateway\", \"admin\", \"echo\", \"discard\", \"daytime\" or \"chargen\")
2 | [[listen]]
  | ^^^^^^^^^^",
    );
}

#[test]
fn names_and_addresses_are_unique() {
    check(
        &[listener("127.0.0.1:1", "web"), listener("127.0.0.1:1", "echo")].concat(),
        "
tidegate.toml:6:8: listen[1].name: \"a\" is already the name of listen[0] (a)
6 | name = \"a\"
  |        ^^^
tidegate.toml:7:11: listen[1].address: \"127.0.0.1:1\" is already the address of listen[0] (a)
7 | address = \"127.0.0.1:1\"
  |           ^^^^^^^^^^^^^",
    );
}

#[test]
fn addresses_are_compared_as_addresses() {
    let again = listener("[0:0:0:0:0:0:0:1]:1", "web").replace("\"a\"", "\"b\"");
    check(
        &[listener("[::1]:1", "web"), again].concat(),
        "
tidegate.toml:7:11: listen[1].address: \"[::1]:1\" is already the address of listen[0] (a)
7 | address = \"[0:0:0:0:0:0:0:1]:1\"
  |           ^^^^^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn path_too_long_for_a_socket() {
    let path = format!("unix:/{}", "x".repeat(107));
    let message = format!("\"/{}\": 108 bytes, and a Unix socket has at most 107", "x".repeat(107));
    let given = Given::nothing().set(&format!("listen.web.address={path}"));
    let errors = given.load().unwrap_err();
    assert_eq!((errors.errors().len(), errors.errors()[0].message()), (1, message.as_str()));

    let data_dir = format!("/{}", "x".repeat(100));
    let errors = Given::nothing().set(&format!("data_dir={data_dir}")).load().unwrap_err();
    assert_eq!(errors.errors().len(), 2, "{errors}");
    assert_eq!(errors.errors()[0].key(), "process.control_socket");
    assert_eq!(
        errors.errors()[1].message(),
        format!("\"{data_dir}/log.sock\": 110 bytes, and a Unix socket has at most 107")
    );
}

#[test]
fn paths_that_are_the_same() {
    check_set(
        "log.socket=tidegate-data/control.sock",
        "--set log.socket=tidegate-data/control.sock: log.socket: \"DIR/tidegate-data/control.sock\" is already the path of process.control_socket",
    );
    check_set(
        "listen.web.address=unix:tidegate-data/control.sock",
        "--set listen.web.address=unix:tidegate-data/control.sock: listen[0].address: \"DIR/tidegate-data/control.sock\" is already the path of process.control_socket",
    );
}

#[test]
fn too_many_listeners() {
    let file = listener("127.0.0.1:0", "web").repeat(65);
    let errors = Given::file(&file).load().unwrap_err();
    assert_eq!(errors.errors()[0].message(), "65 tables are too many");
    assert_eq!((errors.errors().len(), errors.errors()[0].allowed()), (1, Some("at most 64")));
}

#[test]
fn options_of_a_listener() {
    let given = Given::file(
        listener("127.0.0.1:0", "echo")
            + "nodelay = false\nkeepalive = \"2m\"\nlinger = \"0s\"\nreceive_buffer = \"64KiB\"\nsend_buffer = 1\nuser_timeout = \"7s\"\nmax_unsent = \"64KiB\"\nproxy_protocol = true\n",
    );
    let found = given.config().listen.remove(0);
    assert_eq!((found.nodelay, found.keepalive), (false, Some(Duration::from_secs(120))));
    assert_eq!(found.linger, Some(Duration::ZERO));
    assert_eq!((found.receive_buffer.get(), found.send_buffer.get()), (65536, 1));
    let plain = Given::file(listener("127.0.0.1:0", "echo")).config().listen.remove(0);
    assert_eq!((plain.nodelay, plain.keepalive, plain.linger), (true, None, None));
    assert_eq!((plain.receive_buffer.get(), plain.send_buffer.get()), (0, 0));
    assert_eq!((found.user_timeout, found.proxy_protocol), (Some(Duration::from_secs(7)), true));
    assert_eq!((plain.user_timeout, plain.proxy_protocol), (None, false));
    assert_eq!((found.max_unsent().get(), plain.max_unsent().get()), (65536, 0));
}

#[test]
fn what_waits_of_tls_is_memory_of_its_own() {
    let tls = "tls = { cert = \"a.pem\", key = \"a.key\" }\n";
    for (said, bytes) in [("", 128 << 10), ("max_unsent = \"0B\"\n", 0), ("max_unsent = 7\n", 7)] {
        let text = listener("127.0.0.1:0", "web") + tls + said;
        let found = Given::file(text).config().listen.remove(0);
        assert_eq!(found.max_unsent().get(), bytes, "{said}");
    }
}

#[test]
fn peers_that_vanish_are_found_where_they_come_from_anywhere() {
    for (service, after) in [("web", 60), ("admin", 60), ("gateway", 0), ("echo", 0)] {
        let found = Given::file(listener("127.0.0.1:0", service)).config().listen.remove(0);
        let after = Duration::from_secs(after);
        assert_eq!((found.keepalive(), found.user_timeout()), (after, after), "{service}");
        let never = listener("127.0.0.1:0", service) + "keepalive = \"0s\"\nuser_timeout = \"0s\"\n";
        let found = Given::file(never).config().listen.remove(0);
        assert_eq!((found.keepalive(), found.user_timeout()), (Duration::ZERO, Duration::ZERO), "{service}");
    }
}

#[test]
fn what_is_shown_of_options_can_be_loaded_and_handed_over() {
    let unix = listener("unix:s", "echo").replace("\"a\"", "\"b\"");
    let given = Given::file([listener("127.0.0.1:0", "echo"), "linger = \"0s\"\n".to_owned(), unix].concat());
    let config = given.config();
    let again = Given::file(config.to_toml().unwrap()).config();
    assert_eq!(config.listen, again.listen);
    assert_eq!(Config::from_json(&config.to_json().unwrap()).unwrap().listen, config.listen);
}

#[test]
fn a_time_to_linger_would_stop_the_loop() {
    check_set(
        "listen.web.linger=5s",
        "--set listen.web.linger=5s: listen[0].linger: \"5s\" cannot be served: close(2) would keep the loop waiting for so long; \"0s\" can",
    );
}

#[test]
fn options_that_a_unix_socket_does_not_have() {
    let none = "nodelay = false\nkeepalive = \"1m\"\nlinger = \"0s\"\nreceive_buffer = 1\nsend_buffer = 2\nuser_timeout = \"9s\"\nmax_unsent = 3\n";
    let errors = Given::file(listener("unix:s", "echo") + none).load().unwrap_err();
    let found: Vec<(&str, &str)> =
        errors.errors().iter().map(|error| (error.key(), error.message())).collect();
    let tcp = |value: &str| {
        format!("{value} has no effect: it is an option of TCP, and the address is that of a Unix socket")
    };
    let buffer = |value: &str| {
        format!("{value} has no effect: a Unix socket does not pass it on to the connections that it accepts")
    };
    assert_eq!(
        found,
        [
            ("listen[0].nodelay", tcp("false").as_str()),
            ("listen[0].keepalive", tcp("\"1m\"").as_str()),
            ("listen[0].linger", tcp("\"0s\"").as_str()),
            ("listen[0].receive_buffer", buffer("\"1B\"").as_str()),
            ("listen[0].send_buffer", buffer("\"2B\"").as_str()),
            ("listen[0].user_timeout", tcp("\"9s\"").as_str()),
            ("listen[0].max_unsent", tcp("\"3B\"").as_str()),
        ]
    );
}
