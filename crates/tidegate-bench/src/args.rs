//! What was typed.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use tidegate_bench::{CountingTool, Model, Scenario, ServiceKind};

/// Measures the concurrency models, loads a server, holds many connections.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure every concurrency model in every scenario, and print a table
    Models(ModelsArgs),
    /// Load a server: a closed loop on each active connection
    Load(LoadArgs),
    /// Hold many connections that each send a message now and then
    Hold(HoldArgs),
    /// Serve one protocol under one model, until standard input ends
    Serve(ServeArgs),
    /// One process of `hold`, started by it
    #[command(hide = true)]
    HoldMember(MemberArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ModelsArgs {
    /// Which models, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = PossibleValuesParser::new(Model::NAMES))]
    model: Vec<String>,
    /// Which scenarios, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = scenario)]
    scenario: Vec<Scenario>,
    /// How often each is measured; the rounds of all models alternate
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000).map(usize::from))]
    pub(crate) rounds: usize,
    /// How long each time
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// How long before anything counts
    #[arg(long, default_value = "300ms", value_parser = duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    /// How long system calls are counted, once for each; 0s: not at all
    #[arg(long, default_value = "500ms", value_parser = duration, value_name = "TIME")]
    pub(crate) trace: Duration,
    /// What counts them: perf, strace, or auto, which takes strace only when perf cannot
    #[arg(long, default_value_t = CountingTool::Auto, value_name = "TOOL")]
    pub(crate) count_with: CountingTool,
    /// The processor of the server and all its threads
    #[arg(long, value_name = "N")]
    pub(crate) server_cpu: Option<usize>,
    /// The processor of the client
    #[arg(long, value_name = "N")]
    pub(crate) client_cpu: Option<usize>,
    /// Threads of the models that have a pool
    #[arg(long, default_value = "8", value_name = "N")]
    pub(crate) pool_threads: NonZero<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl ModelsArgs {
    pub(crate) fn models(&self) -> Vec<String> {
        if self.model.is_empty() { Model::NAMES.map(str::to_owned).to_vec() } else { self.model.clone() }
    }

    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        if self.scenario.is_empty() { Scenario::ALL.to_vec() } else { self.scenario.clone() }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Where to connect to; several are used in turn
    #[arg(long, required = true, value_name = "ADDRESS:PORT")]
    pub(crate) to: Vec<SocketAddr>,
    /// Where to connect from; several are used in turn [default: the kernel chooses]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Vec<IpAddr>,
    /// What is asked: hello (HTTP), or echo and sleep (a message that must come back)
    #[arg(long, default_value = "echo", value_name = "SERVICE")]
    pub(crate) ask: ServiceKind,
    /// Open connections
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) connections: usize,
    /// The share of them that asks
    #[arg(long, default_value_t = 1.0, value_parser = fraction, value_name = "FRACTION")]
    pub(crate) active: f64,
    /// The size of a message in bytes
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub(crate) size: usize,
    /// Requests in flight on each active connection
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) pipeline: usize,
    /// How long is measured
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// How long before anything counts
    #[arg(long, default_value = "300ms", value_parser = duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    /// The processor of the client
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HoldArgs {
    /// Where to connect to: a server that sends back what it receives; several are used in turn
    #[arg(long, required = true, value_name = "ADDRESS:PORT")]
    pub(crate) to: Vec<SocketAddr>,
    /// Connections in all
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) connections: usize,
    /// Processes that share them
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub(crate) processes: usize,
    /// Each connection sends a message once in this time
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) every: Duration,
    /// How long all are held
    #[arg(long = "for", default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) time: Duration,
    /// The server's first process: its processor time and memory are shown, with all its children's
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The concurrency model
    #[arg(long, value_parser = PossibleValuesParser::new(Model::NAMES))]
    pub(crate) model: String,
    /// The protocol: hello, echo, sleep
    #[arg(long)]
    pub(crate) service: ServiceKind,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Connections at the same time
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) max_connections: usize,
    /// Threads of the models that have a pool
    #[arg(long, default_value = "8", value_name = "N")]
    pub(crate) pool_threads: NonZero<usize>,
    /// The processor of all threads
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MemberArgs {
    #[arg(long, required = true)]
    pub(crate) to: Vec<SocketAddr>,
    #[arg(long)]
    pub(crate) from: Vec<IpAddr>,
    #[arg(long)]
    pub(crate) connections: usize,
    #[arg(long, value_parser = duration)]
    pub(crate) every: Duration,
    #[arg(long = "for", value_parser = duration)]
    pub(crate) time: Duration,
    #[arg(long, value_parser = duration)]
    pub(crate) last_answers: Duration,
}

/// A number with its unit: `300ms`, `1.5s`, `2m`. A day at most.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    match found {
        Some(time) if time <= LONGEST => Ok(time),
        Some(_) => Err("longer than a day".to_owned()),
        None => Err("a time is a number with ms, s or m behind it".to_owned()),
    }
}

const LONGEST: Duration = Duration::from_secs(86_400);

fn fraction(text: &str) -> Result<f64, String> {
    let found = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    found.ok_or_else(|| "a share lies between 0 and 1".to_owned())
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::ALL
        .into_iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| format!("there are {}", Scenario::ALL.map(|scenario| scenario.name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = ["tidegate-bench"].into_iter().chain(line.split_whitespace());
        Args::try_parse_from(words).map(|args| args.command)
    }

    #[test]
    fn all_models_and_scenarios_are_the_default() {
        let Command::Models(args) = parse("models").unwrap() else { panic!("another command") };
        assert_eq!(args.models(), Model::NAMES);
        assert_eq!(args.scenarios(), Scenario::ALL);
        assert_eq!((args.rounds, args.duration, args.json), (3, Duration::from_secs(2), false));
    }

    #[test]
    fn some_are_named_with_commas() {
        let line = "models --model poll,uring-inline --scenario hello,10k-1% --rounds 1 --trace 0s --count-with strace --json";
        let Command::Models(args) = parse(line).unwrap() else { panic!("another command") };
        assert_eq!(args.models(), ["poll", "uring-inline"]);
        assert_eq!(args.scenarios().iter().map(|s| s.name).collect::<Vec<_>>(), ["hello", "10k-1%"]);
        assert!(args.trace.is_zero() && args.json);
        assert_eq!(args.count_with, CountingTool::Strace);
        assert!(parse("models --model select").unwrap_err().to_string().contains("epoll-edge-inline"));
        assert!(parse("models --scenario h").unwrap_err().to_string().contains("there are hello, pipelined"));
        assert!(parse("models --rounds 0").is_err());
        assert!(parse("models --pool-threads 0").is_err());
    }

    #[test]
    fn a_hold_has_the_figures_of_its_name() {
        let line = "hold --to 127.0.0.1:7 --to 127.0.0.9:7 --every 30s --for 1m --server-pid 12";
        let Command::Hold(args) = parse(line).unwrap() else { panic!("another command") };
        assert_eq!((args.connections, args.processes), (100_000, 6));
        assert_eq!((args.every, args.time), (Duration::from_secs(30), Duration::from_secs(60)));
        assert_eq!((args.to.len(), args.server_pid), (2, Some(12)));
        assert!(parse("hold").is_err());
    }

    #[test]
    fn a_load_is_checked() {
        let line = "load --to 127.0.0.1:7 --ask hello --pipeline 16 --active 0.01 --connections 9";
        let Command::Load(args) = parse(line).unwrap() else { panic!("another command") };
        assert_eq!((args.ask, args.pipeline, args.connections), (ServiceKind::Hello, 16, 9));
        assert!(parse("load --to 127.0.0.1:7 --active 1.1").is_err());
        assert!(parse("load --to 127.0.0.1:7 --active NaN").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1441m"), Err("longer than a day".to_owned()));
        for wrong in ["", "s", "3", "-1s", "NaNs", "infs", "1h", "1e300s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
