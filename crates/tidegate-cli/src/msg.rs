//! `tidegate msg`: requests to a message gateway, and how long their answers took.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use tidegate::gateway::{Client, ClientError, Status};

use crate::failure::Failure;
use crate::output::{Form, print, print_json};
use crate::password;

/// Requests of one kind, one after the other on one connection.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) address: String,
    pub(crate) ask: Ask,
    /// At least 1.
    pub(crate) count: u32,
    pub(crate) timeout: Duration,
    pub(crate) form: Form,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Ping,
    Register { login: Login, kind: i32 },
    Login(Login),
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    /// Without one it is read from standard input.
    pub(crate) password: Option<String>,
}

/// An [`Ask`] that has its password.
enum Request<'a> {
    Ping,
    Register { kind: i32, user: &'a str, password: Vec<u8> },
    Login { user: &'a str, password: Vec<u8> },
}

/// Sends them, and prints what came back. A refusal is a failure.
pub(crate) fn send(message: &Message) -> Result<(), Failure> {
    let request = Request::of(&message.ask)?;
    let client = match message.address.strip_prefix("unix:") {
        Some(path) => Client::connect_unix(path, message.timeout),
        None => Client::connect(message.address.as_str(), message.timeout),
    };
    let mut client = client.with_context(|| format!("gateway {}", message.address))?;
    let mut times = Vec::with_capacity(message.count.min(MAX_RESERVED) as usize);
    let mut refused = false;
    for _ in 0..message.count {
        let begin = Instant::now();
        let status = request
            .send(&mut client)
            .with_context(|| format!("{} to gateway {}", request.name(), message.address))?;
        let round_trip = begin.elapsed();
        times.push(round_trip);
        refused |= status != Status::Done;
        match message.form {
            Form::Text => print(format!("{}: {status}, {}\n", request.name(), millis(round_trip)))?,
            Form::Json => print_json(&json!({
                "request": request.name(),
                "status": status.number(),
                "message": status.to_string(),
                "round_trip_ns": u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX),
            }))?,
        }
    }
    if message.count > 1 && message.form == Form::Text {
        print(summary(&times))?;
    }
    if refused { Err(Failure::FailedAndTold) } else { Ok(()) }
}

impl<'a> Request<'a> {
    fn of(ask: &'a Ask) -> anyhow::Result<Self> {
        let password = |login: &Login| match &login.password {
            Some(password) => Ok(password.clone().into_bytes()),
            None => password::read(", or --password"),
        };
        Ok(match ask {
            Ask::Ping => Self::Ping,
            Ask::Register { login, kind } => {
                Self::Register { kind: *kind, user: &login.user, password: password(login)? }
            }
            Ask::Login(login) => Self::Login { user: &login.user, password: password(login)? },
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Register { .. } => "register",
            Self::Login { .. } => "login",
        }
    }

    fn send(&self, client: &mut Client) -> Result<Status, ClientError> {
        match self {
            Self::Ping => client.ping().map(|()| Status::Done),
            Self::Register { kind, user, password } => client.register(*kind, user.as_bytes(), password),
            Self::Login { user, password } => client.login(user.as_bytes(), password),
        }
    }
}

/// The shortest, the mean and the longest of the times, of which there is at least one.
fn summary(times: &[Duration]) -> String {
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX).max(1);
    let mean = times.iter().sum::<Duration>() / count;
    let least = times.iter().min().copied().unwrap_or_default();
    let most = times.iter().max().copied().unwrap_or_default();
    let (least, mean, most) = (millis(least), millis(mean), millis(most));
    format!("{count} requests, round trip: min {least}, mean {mean}, max {most}\n")
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// Memory for so many times is taken beforehand, so that a measurement is not disturbed by its own bookkeeping.
const MAX_RESERVED: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_extremes_and_the_mean() {
        let times = [1, 2, 6].map(Duration::from_millis);
        assert_eq!(summary(&times), "3 requests, round trip: min 1.000 ms, mean 3.000 ms, max 6.000 ms\n");
    }
}
