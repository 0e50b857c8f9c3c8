//! What was typed: the command line as clap reads it.
//!
//! Nothing is decided here. `--config` and `--set` may stand before and behind the command; both are kept, which is why they
//! are not clap's global arguments, of which the ones behind would replace those before.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tidegate::config::{Name, parse_duration};
use tidegate::log::{Levels, Severity};

use crate::allocator::LONG_VERSION;
use crate::bench::BenchArgs;

/// Long-lived connections, served and not dropped: a web server, a message gateway and their log in one program.
///
/// Without a command it serves in the foreground, as `tidegate run` does, on the built-in default unless there is a file
/// `tidegate.toml` here.
#[derive(Debug, Parser)]
#[command(name = "tidegate", bin_name = "tidegate", version, long_version = LONG_VERSION, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(subcommand)]
    pub(crate) command: Option<CommandArgs>,
}

/// Where the configuration is.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file; without it ./tidegate.toml, and without that the built-in default
    #[arg(long = "config", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Sets a key of the configuration, as process.workers=2 or listen.web.address=0.0.0.0:80; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CommandArgs {
    /// Serves in the foreground until it is stopped
    Run {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Serves in the background; returns when it does, or has failed
    Start {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Stops the server that runs with this configuration, and waits for its end
    Stop {
        #[command(flatten)]
        config: ConfigArgs,
        /// Closes everything at once, without letting what is in flight finish
        #[arg(long)]
        now: bool,
    },
    /// Applies a changed configuration without losing a connection
    Reload {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Replaces the running program by the one that stands at its path now, without losing a connection
    Upgrade {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Replaces a worker by a new one; the old one finishes what it holds
    Drain {
        #[command(flatten)]
        config: ConfigArgs,
        /// The number of the worker
        worker: u32,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Stops accepting on a listener, or in a worker, for which the others then accept; what is connected stays
    Pause {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        whose: WhoseArgs,
    },
    /// Accepts again where it was paused
    Resume {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        whose: WhoseArgs,
    },
    /// Lists the connections
    Connections {
        #[command(flatten)]
        config: ConfigArgs,
        /// Only those behind this one, in the order of the list
        #[arg(long, value_name = "ID", value_parser = connection_id)]
        after: Option<String>,
        /// How many at once
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: Option<u32>,
        /// Goes on until there are no more
        #[arg(long)]
        all: bool,
        /// As JSON, one line for each page
        #[arg(long)]
        json: bool,
    },
    /// Closes a connection
    Close {
        #[command(flatten)]
        config: ConfigArgs,
        /// As `tidegate connections` shows it
        #[arg(value_parser = connection_id)]
        id: String,
    },
    /// Changes the log level of the running server, until it is changed again or the server ends; a reload keeps it
    Loglevel {
        #[command(flatten)]
        config: ConfigArgs,
        /// off, error, warn, info, debug or trace: of all targets that have none of their own, or of the one before the =
        #[arg(value_name = "[TARGET=]LEVEL", value_parser = level_change)]
        level: String,
    },
    /// Lets the server open its log files again
    Reopen {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Shows the generations, processes, listeners and threads of the server
    Status {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Checks the configuration and lists everything that is wrong with it
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints every value of the configuration and where it came from
    Config {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes a certificate and its key, for a first try of TLS
    Cert(CertArgs),
    /// Prints a line for a file of users, with the hash of a password that is read from standard input
    Password {
        /// The name of the user
        user: String,
    },
    /// Sends requests to a message gateway
    #[command(subcommand)]
    Msg(MsgArgs),
    /// Tells round trips, losses and response times from a capture file (pcap or pcapng)
    Latency(LatencyArgs),
    /// Reads the log
    #[command(subcommand)]
    Log(LogArgs),
    /// Measures servers: this one in every combination that works, or any other
    #[command(subcommand)]
    Bench(BenchArgs),
}

/// What a certificate is to be.
#[derive(Debug, clap::Args)]
pub(crate) struct CertArgs {
    /// Signed by itself, so that nobody trusts it but who is given it; there is no other kind yet
    #[arg(long, required = true)]
    pub(crate) self_signed: bool,
    /// A name or an address that it is for, as example.org, *.example.org or 192.0.2.1; may be repeated
    #[arg(long = "host", value_name = "HOST", default_values_t = ["localhost", "127.0.0.1", "::1"].map(str::to_owned))]
    pub(crate) hosts: Vec<String>,
    /// For how many days it is valid
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// Where to write the certificate; a file that exists is not overwritten
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Where to write its key, for the owner's eyes alone
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

/// For orders that may take long.
#[derive(Debug, clap::Args)]
pub(crate) struct PatienceArgs {
    /// How long to wait for its end; it goes on in the server after that
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

/// Whose accepting.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhoseArgs {
    /// The name of the listener
    #[arg(value_parser = listener)]
    pub(crate) listener: Option<String>,
    /// The number of the worker
    #[arg(long, value_name = "N")]
    pub(crate) worker: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MsgArgs {
    /// Asks whether the gateway answers
    Ping {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Asks for a new account
    Register {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        login: LoginArgs,
        /// The type of the account, a number that the gateway stores
        #[arg(long = "type", value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
        kind: i32,
    },
    /// Logs in
    Login {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        login: LoginArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// The gateway, as 127.0.0.1:9000, gateway.example.org:9000 or unix:/run/gateway.sock
    #[arg(long = "to", value_name = "ADDR")]
    pub(crate) address: String,
    /// How many requests, one after the other on one connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// How long to wait for the connection and for each answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,
    /// As JSON, one line for each request
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The name of the user, at most 56 bytes
    #[arg(long)]
    pub(crate) user: String,
    /// The password, at most 40 bytes; without it one line is read from standard input
    #[arg(long)]
    pub(crate) password: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LatencyArgs {
    /// What tcpdump -w or dumpcap -w has written
    pub(crate) file: PathBuf,
    /// Only connections to this port, which is then known to be the server's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// What the data is read as: auto goes by the first bytes of each client, none does not look at data
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ProtocolArg::Auto)]
    pub(crate) protocol: ProtocolArg,
    /// How many connections are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) connections: usize,
    /// Draws the round trips over time into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the data of a capture is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProtocolArg {
    Auto,
    Http,
    Frame,
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogArgs {
    /// Prints the last records
    Tail {
        #[command(flatten)]
        config: ConfigArgs,
        /// Goes on with those that are written later
        #[arg(short = 'f', long)]
        follow: bool,
        /// How many of the records that there are
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
        lines: usize,
        /// The least severity: trace, debug, info, warn, error or fatal
        #[arg(long, value_name = "LEVEL", default_value = "trace", value_parser = severity)]
        level: Severity,
        /// Only records of this target and those below it, as tidegate_web::access
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// Only what the records say, as lines of an access log are to be read by other programs
        #[arg(long, conflicts_with = "json")]
        body: bool,
        /// The records as they are stored, one JSON object on each line
        #[arg(long)]
        json: bool,
    },
}

fn timeout(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("it must be longer than 0s".to_owned()) } else { Ok(duration) }
}

/// Only the server knows whether there is such a connection; this is what all of them look like.
fn connection_id(text: &str) -> Result<String, String> {
    let is_number =
        |part: &str| part.parse::<u64>().is_ok() && part.bytes().all(|byte| byte.is_ascii_digit());
    // A worker that has taken the place of another is called as 0n.
    let is_part = |(place, part): (usize, &str)| match part.strip_suffix('n') {
        Some(worker) if place == WORKER_OF_ID => is_number(worker),
        _ => is_number(part),
    };
    if text.len() <= MAX_ID_BYTES && text.split('.').enumerate().all(is_part) {
        Ok(text.to_owned())
    } else {
        Err("an id is numbers with dots between, as 1.0.0.12.3 or 1.0n.0.12.3".to_owned())
    }
}

fn listener(text: &str) -> Result<String, String> {
    text.parse::<Name>().map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
}

fn level_change(text: &str) -> Result<String, String> {
    // What is not to be known here is what the levels are now, but that makes no difference to what is a change.
    Levels::default().with_target(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn severity(text: &str) -> Result<Severity, String> {
    text.parse().map_err(|error: tidegate::log::UnknownSeverity| error.to_string())
}

/// Which part of an id is the worker, counted from 0.
const WORKER_OF_ID: usize = 1;
/// Longer than any id.
const MAX_ID_BYTES: usize = 100;

const EXIT_CODES: &str =
    "Exit codes: 0 done, or stopped as asked; 1 failed; 2 wrong usage, or a configuration refused.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn usage_errors_name_the_program_and_not_the_title_of_the_process() {
        let error = Args::try_parse_from(["tidegate: master", "run", "--nothing"]).unwrap_err().to_string();
        assert!(error.contains("Usage: tidegate run"), "{error}");
    }

    #[test]
    fn ids_names_and_levels_are_checked_before_the_server_is_asked() {
        for good in [
            &["close", "1.0.0.12.3"][..],
            &["close", "1.0n.0.12.3"],
            &["pause", "web"],
            &["resume", "--worker", "3"],
            &["loglevel", "debug"],
            &["loglevel", "tidegate_engine=trace"],
            &["connections", "--after", "1.0.0.12.3", "--limit", "5", "--all"],
            &["drain", "0", "--timeout", "5m"],
            &["latency", "a.pcap", "--port", "80", "--protocol", "http", "--svg", "a.svg", "--json"],
        ] {
            assert!(Args::try_parse_from([&["tidegate"], good].concat()).is_ok(), "{good:?}");
        }
        for bad in [
            &["close", "1.0 all"][..],
            &["close", ""],
            &["close", "1..2"],
            &["close", "+1"],
            &["close", "1.0.0n.12.3"],
            &["close", "1.n.0.12.3"],
            &["pause"],
            &["pause", "web", "--worker", "3"],
            &["pause", "web worker"],
            &["loglevel", "loud"],
            &["loglevel", "debug\nstop"],
            &["connections", "--limit", "0"],
            &["connections", "--limit", "1001"],
            &["drain", "-1"],
            &["reload", "--timeout", "0s"],
            &["latency"],
            &["latency", "a.pcap", "--port", "0"],
            &["latency", "a.pcap", "--protocol", "smtp"],
        ] {
            let error = Args::try_parse_from([&["tidegate"], bad].concat()).unwrap_err();
            assert!(error.use_stderr(), "{bad:?}");
        }
    }
}
