//! A message gateway with a message of the program's own: code 1000 answers a text in capitals.
//!
//! Ping, heartbeats and limits come with the gateway; the transport is not touched. Try it with the client of the library:
//! `Client::connect("127.0.0.1:9000", timeout)?.send(1000, b"hello")`.

use tidegate::Server;
use tidegate::gateway::Gateway;

/// Codes from 1000 on are the programs' own.
const SHOUT: u16 = 1000;

fn main() -> Result<(), tidegate::Error> {
    Server::builder()
        .listen("127.0.0.1:9000", || {
            Gateway::builder().on(SHOUT, |ctx, body| ctx.reply(SHOUT, &body.to_ascii_uppercase())).build()
        })
        .run()
}
