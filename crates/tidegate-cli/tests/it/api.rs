//! The accounts API of the whole server: several workers, one database, and a reload in between.

use serde_json::Value;
use tempfile::tempdir;

use crate::http::{Answer, Connection};
use crate::support::{Server, Setup};

/// A request of its own connection, so that any worker may answer it.
fn post(server: &Server, path: &str, form: &str) -> Answer {
    let mut connection = Connection::open(server.address_now("web"));
    connection.send(&format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    ));
    connection.answer().unwrap()
}

fn me(server: &Server, token: &str) -> Answer {
    let mut connection = Connection::open(server.address_now("web"));
    connection.send(&format!(
        "GET /api/me HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    ));
    connection.answer().unwrap()
}

#[test]
fn who_is_logged_in_stays_so_over_a_reload_and_with_every_worker() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("web.api=true").start();
    assert_eq!(post(&server, "/api/register", "user=ada&password=secret").status, 201);
    let mangled = post(&server, "/api/register", "user=ad%ff&password=secret");
    assert_eq!(mangled.status, 400, "{}", mangled.body);
    let login = post(&server, "/api/login", "user=ada&password=secret&session=bearer");
    assert_eq!(login.status, 200, "{}", login.body);
    let session: Value = serde_json::from_str(&login.body).unwrap();
    let token = session["token"].as_str().unwrap();
    for _ in 0..8 {
        assert_eq!(me(&server, token).status, 200);
    }
    server.reload();
    for _ in 0..8 {
        let answer = me(&server, token);
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("\"ada\""), "{}", answer.body);
    }
    for _ in 0..10 {
        assert_eq!(post(&server, "/api/login", "user=ada&password=guess").status, 401);
    }
    let refused = post(&server, "/api/login", "user=ada&password=secret");
    assert_eq!(refused.status, 429, "whichever worker has answered before");
    assert!(refused.head.contains("\r\nRetry-After: "), "{}", refused.head);
}

#[test]
fn without_it_there_is_no_api() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    assert_eq!(me(&server, "x").status, 404);
}
