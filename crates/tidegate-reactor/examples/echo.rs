//! An echo server on the bare reactor: no engine, no deadlines.
//!
//! ```sh
//! cargo run --release -p tidegate-reactor --example echo -- uring 7000
//! cargo run --release -p tidegate-reactor --example echo -- epoll 7000
//! ```

use std::collections::HashSet;
use std::error::Error;
use std::net::TcpListener;

use rustix::net::sockopt;
use tidegate_reactor::{Completion, End, Epoll, More, Reactor, Token, Trigger, Uring};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let backend = arguments.next().ok_or("which: epoll or uring?")?;
    let port: u16 = arguments.next().ok_or("at which port?")?.parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    rustix::net::listen(&listener, 4096)?;
    match &*backend {
        "epoll" => serve(Epoll::new(Trigger::default())?, listener),
        "uring" => serve(Uring::new()?, listener),
        other => Err(format!("{other}: epoll or uring").into()),
    }
}

fn serve(mut reactor: impl Reactor, listener: TcpListener) -> Result<(), Box<dyn Error>> {
    reactor.listen(listener.into(), false)?;
    let mut free = Vec::new();
    let mut slots = 0;
    let mut generation = 1;
    // Connections with an answer that waits, of which nothing more is read until it has left.
    let mut waiting: HashSet<Token> = HashSet::new();
    let mut bytes = Vec::new();
    let mut kept: Vec<(Token, Vec<u8>)> = Vec::new();
    loop {
        reactor.wait(None)?;
        while let Some(completion) = reactor.next() {
            let over = match completion {
                Completion::Accepted { socket, .. } => {
                    let slot = free.pop().unwrap_or_else(|| {
                        slots += 1;
                        slots - 1
                    });
                    reactor.open(Token { slot, generation }, socket)?;
                    generation = generation.checked_add(1).unwrap_or(1);
                    None
                }
                Completion::Received(token) => echo(&mut reactor, token, &mut bytes, &mut kept, &mut waiting),
                Completion::Writable(token) => go_on(&mut reactor, token, &mut kept, &mut waiting),
                Completion::Ended(token) | Completion::Failed(token, _) => Some(token),
                Completion::AcceptFailed { error, .. } => return Err(error.into()),
                // Only a reactor that lends its connections says that they are ready.
                Completion::Connected(_)
                | Completion::Ready(_)
                | Completion::Stalled(_)
                | Completion::Woken => None,
                // No such socket was opened.
                Completion::Datagrams(_) | Completion::DatagramRoom(_) => None,
            };
            if let Some(token) = over {
                reactor.close(token, End::Fin);
                kept.retain(|(owner, _)| *owner != token);
                waiting.remove(&token);
                free.push(token.slot);
            }
        }
    }
}

/// Sends back what was received; what is not taken is kept. Answers the connection when it is over.
fn echo(
    reactor: &mut impl Reactor,
    token: Token,
    bytes: &mut Vec<u8>,
    kept: &mut Vec<(Token, Vec<u8>)>,
    waiting: &mut HashSet<Token>,
) -> Option<Token> {
    // A send may not look into the reactor's own buffer.
    bytes.clear();
    bytes.extend_from_slice(reactor.received());
    if waiting.contains(&token) {
        kept.push((token, bytes.clone()));
        return None;
    }
    let Ok(taken) = reactor.send(token, bytes, More::No) else { return Some(token) };
    if taken < bytes.len() {
        kept.push((token, bytes[taken..].to_vec()));
        waiting.insert(token);
        reactor.pause(token);
        reactor.await_writable(token);
    }
    None
}

/// Sends what is kept. Answers the connection when it is over.
fn go_on(
    reactor: &mut impl Reactor,
    token: Token,
    kept: &mut Vec<(Token, Vec<u8>)>,
    waiting: &mut HashSet<Token>,
) -> Option<Token> {
    for (owner, bytes) in kept.iter_mut().filter(|(owner, _)| *owner == token) {
        let Ok(taken) = reactor.send(*owner, bytes, More::No) else { return Some(token) };
        bytes.drain(..taken);
        if !bytes.is_empty() {
            break;
        }
    }
    kept.retain(|(_, bytes)| !bytes.is_empty());
    if kept.iter().any(|(owner, _)| *owner == token) {
        reactor.await_writable(token);
    } else {
        waiting.remove(&token);
        reactor.resume(token);
    }
    None
}
