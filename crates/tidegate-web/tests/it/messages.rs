//! Messages that look odd and are right: served like any other, and the next request on the connection is none the worse.

use tidegate_web::{Status, Web};

use crate::client::{Client, Server, get};

fn server() -> Server {
    Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!"))
}

/// Each is answered with 200, and keeps its connection.
const MESSAGES: [&str; 14] = [
    // absolute-form (RFC 9112, section 3.2.2).
    "GET http://other.example/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET HTTPS://[::1]:8443/hello?x HTTP/1.1\r\nHost: a\r\n\r\n",
    // Empty lines before the request (section 2.2).
    "\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    // A minor version of later days.
    "GET /hello HTTP/1.7\r\nHost: a\r\n\r\n",
    // HTTP/1.0 that asks to stay.
    "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    // Fields without a value, with blanks around it, with bytes above ASCII.
    "GET /hello HTTP/1.1\r\nX:\r\nHost: \t a \t\r\nY:\t\u{e4} \r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 02\r\n\r\n\r\n",
    // A body that looks like a request.
    "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\nGET / HTTP/1.1\r\n",
    "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 ;a=\"0\\\"\" ; b\r\n0\r\n\r\n000;c\r\n\r\n",
    // Trailers are dropped, whatever they claim.
    "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 99\r\nHost: b\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: gzip\r\nX:\r\n\r\n",
    // Options of the connection that nobody knows.
    "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
];

/// `\u{e4}` stands for one byte here, as in Latin 1.
fn bytes(message: &str) -> Vec<u8> {
    message.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin 1")).collect()
}

#[track_caller]
fn check(client: &mut Client, message: &str) {
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (200, "Hello, World!", false), "{message:?}");
}

#[test]
fn odd_messages_are_served_one_after_the_other() {
    let server = server();
    let mut client = server.connect();
    client.send(MESSAGES.map(bytes).concat());
    for message in MESSAGES {
        check(&mut client, message);
    }
    assert_eq!(client.ask(get("/hello")).status, 200);
}

#[test]
fn odd_messages_may_arrive_in_any_two_pieces() {
    let server = server();
    let mut client = server.connect();
    for message in MESSAGES {
        let message_bytes = bytes(message);
        for at in 1..message_bytes.len() {
            client.send(&message_bytes[..at]);
            client.send(&message_bytes[at..]);
            check(&mut client, message);
        }
        for byte in message_bytes.chunks(1) {
            client.send(byte);
        }
        check(&mut client, message);
    }
}
