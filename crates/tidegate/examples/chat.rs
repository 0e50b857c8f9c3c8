//! A chat over frames: one room, in which everybody hears what the others say.
//!
//! `cargo run --release -p tidegate --features gateway --example chat` is the room. The same with `-- 127.0.0.1:9001 alice` takes
//! part in it with the lines that are typed. A frame of code [`JOIN`] brings a name, one of [`SAY`] what is said; the room sends
//! [`HEARD`] to everybody, a line with the name in front.
//!
//! The room is a table of `ConnHandle`s: any loop or thread may post to them, and one whose connection has ended says so. It
//! is in the memory of one worker, whose loops share it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::collections::HashMap;
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate::gateway::{BodyTooLong, Client, ClientError, Flow, FrameContext, Gateway, Note};
use tidegate::{ConnHandle, Server, ServerBuilder};

const JOIN: u16 = 1000;
const SAY: u16 = 1001;
const HEARD: u16 = 1002;

const MAX_MEMBERS: usize = 10_000;
/// In bytes.
const MAX_NAME: usize = 40;
const MAX_LINE: usize = 2_000;

/// Who is there, and by which name.
#[derive(Default)]
struct Room(Mutex<HashMap<ConnHandle<Note>, String>>);

impl Room {
    fn join(&self, ctx: &mut FrameContext<'_, '_>, body: &[u8]) -> Result<Flow, BodyTooLong> {
        let name = String::from_utf8_lossy(body).trim().to_owned();
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return ctx.reply(HEARD, b"* a name has 1 to 40 bytes and no control characters");
        }
        {
            let mut members = self.members();
            members.retain(|handle, _| handle.is_open());
            if members.len() >= MAX_MEMBERS || members.values().any(|taken| *taken == name) {
                return ctx.reply(HEARD, b"* the room is full, or the name is taken");
            }
            // Whoever joins a second time has another name from now on.
            members.insert(ctx.handle(), name.clone());
        }
        self.tell(&format!("* {name} has come"))
    }

    fn say(&self, ctx: &mut FrameContext<'_, '_>, body: &[u8]) -> Result<Flow, BodyTooLong> {
        let line = String::from_utf8_lossy(body);
        if line.len() > MAX_LINE {
            return ctx.reply(HEARD, b"* that is too long");
        }
        let name = self.members().get(&ctx.handle()).cloned();
        match name {
            Some(name) => self.tell(&format!("{name}: {line}")),
            None => ctx.reply(HEARD, b"* join first"),
        }
    }

    /// All hear it, the speaker as well, and all in the same order.
    fn tell(&self, line: &str) -> Result<Flow, BodyTooLong> {
        let note = Note::push(HEARD, line.as_bytes())?;
        // Who has gone, or whose loop is flooded, is a member no longer.
        self.members().retain(|handle, _| handle.post(note.clone()).is_ok());
        Ok(Flow::Continue)
    }

    fn members(&self) -> MutexGuard<'_, HashMap<ConnHandle<Note>, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn room(address: &str) -> ServerBuilder {
    let room = Arc::new(Room::default());
    Server::builder().workers(1).listen_named("chat", address, move || {
        let (join, say) = (Arc::clone(&room), Arc::clone(&room));
        let gateway = Gateway::builder()
            .on(JOIN, move |ctx, body| join.join(ctx, body))
            .on(SAY, move |ctx, body| say.say(ctx, body));
        Ok(gateway.build())
    })
}

/// The other end: says the lines that come, and gives what is heard to `hear`, until there are no more lines.
fn take_part(
    mut client: Client,
    lines: &Receiver<String>,
    mut hear: impl FnMut(&str),
) -> Result<(), ClientError> {
    let mut pinged = Instant::now();
    loop {
        match client.recv() {
            Ok(frame) => {
                hear(&String::from_utf8_lossy(&frame.body));
                continue;
            }
            Err(ClientError::Timeout(_)) => {}
            Err(error) => return Err(error),
        }
        match lines.try_recv() {
            Ok(line) => client.send(SAY, line.as_bytes())?,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        // A gateway takes a client that is silent for minutes for dead.
        if pinged.elapsed() > HEARTBEAT {
            client.ping()?;
            pinged = Instant::now();
        }
    }
}

const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long is listened before a typed line is looked for.
const PATIENCE: Duration = Duration::from_millis(50);

fn talk(address: &str, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Client::connect(address, PATIENCE)?;
    client.send(JOIN, name.as_bytes())?;
    let (typed, lines) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        // The end of the input, or of the chat, ends this thread.
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.send(line).is_err() {
                return;
            }
        }
    });
    take_part(client, &lines, |line| println!("{line}"))?;
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [] => room("127.0.0.1:9001").run().map_err(Into::into),
        [address, name] => talk(address, name),
        _ => Err("either no arguments, or an address and a name".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(client: &mut Client) -> String {
        String::from_utf8(client.recv().unwrap().body).unwrap()
    }

    #[test]
    fn all_hear_what_one_says() {
        let server = room("127.0.0.1:0").loops(2).spawn().unwrap();
        let address = server.address("chat").unwrap();
        let connect = || Client::connect(address, Duration::from_secs(10)).unwrap();
        let (mut alice, mut bob) = (connect(), connect());
        alice.send(SAY, b"anybody?").unwrap();
        assert_eq!(heard(&mut alice), "* join first");
        alice.send(JOIN, b"alice").unwrap();
        assert_eq!(heard(&mut alice), "* alice has come");
        bob.send(JOIN, b"alice").unwrap();
        assert_eq!(heard(&mut bob), "* the room is full, or the name is taken");
        bob.send(JOIN, b"bob").unwrap();
        assert_eq!([heard(&mut alice), heard(&mut bob)], ["* bob has come", "* bob has come"]);

        alice.send(SAY, "grüß dich".as_bytes()).unwrap();
        assert_eq!([heard(&mut alice), heard(&mut bob)], ["alice: grüß dich", "alice: grüß dich"]);

        // The one at the terminal: his line comes back to him, and to the others.
        let (typed, lines) = mpsc::sync_channel(1);
        typed.send("here I am".to_owned()).unwrap();
        let mut carol = Client::connect(address, PATIENCE).unwrap();
        carol.send(JOIN, b"carol").unwrap();
        let mut typed = Some(typed);
        let mut told = Vec::new();
        take_part(carol, &lines, |line| {
            told.push(line.to_owned());
            if line == "carol: here I am" {
                typed = None;
            }
        })
        .unwrap();
        assert_eq!(told, ["* carol has come", "carol: here I am"]);
        assert_eq!([heard(&mut bob), heard(&mut bob)], ["* carol has come", "carol: here I am"]);
    }
}
