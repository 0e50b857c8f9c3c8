//! What was typed behind `tidegate bench`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use super::load_args::{EchoArgs, FrameArgs, HttpArgs};
use super::tls_args::TlsArgs;
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tidegate::config::parse_duration;
use tidegate_bench::measure::Times;
use tidegate_bench::models::{self, Combination};
use tidegate_bench::{CountingTool, Model, Scenario, ServiceKind};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchArgs {
    /// Loads a server that sends back what it receives
    Echo(EchoArgs),
    /// Loads a web server
    Http(HttpArgs),
    /// Loads a message gateway
    Msg(FrameArgs),
    /// Finds out what a server can take: one connection, 400, then more until nothing is gained
    Plan(PlanArgs),
    /// Measures this server in every combination of its concurrency models, side by side
    Models(ModelsArgs),
    /// Holds many connections that each send a message now and then
    Hold(HoldArgs),
    /// Measures the models of the engine alone, without the server around it, beside a loop on poll(2)
    Engine(EngineArgs),
    /// Serves one protocol under one model of the engine, until standard input ends
    #[command(hide = true)]
    Serve(ServeArgs),
    /// Becomes the command behind it, and ends with its parent
    #[command(hide = true)]
    Guard(GuardArgs),
    /// One process of `hold`, started by it
    #[command(hide = true)]
    HoldMember(MemberArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The server, as 127.0.0.1:8080, host.example.org:80 or unix:/run/app.sock; for http also http://HOST:PORT/PATH or https://
    #[arg(long, value_name = "ADDR")]
    pub(crate) to: String,
    /// What is asked: echo, http or msg (the ping of the message protocol)
    #[arg(long, default_value = "echo", value_parser = ["echo", "http", "msg"])]
    pub(crate) ask: String,
    /// Bytes of a message of echo
    #[arg(long, default_value_t = 64, value_name = "B")]
    pub(crate) size: usize,
    /// What to get over HTTP; --to may name it too
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1, value_name = "K")]
    pub(crate) pipeline: usize,
    /// Threads that ask
    #[arg(long, default_value_t = 1, value_name = "T")]
    pub(crate) threads: usize,
    /// These stages and no others, separated by commas, as 1,2,8000
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = connections)]
    pub(crate) connections: Vec<usize>,
    /// The stress ends there
    #[arg(long, default_value_t = 25_600, value_name = "N", value_parser = connections, conflicts_with = "connections")]
    pub(crate) max_connections: usize,
    /// How long each stage is measured
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// How long each stage asks before anything counts
    #[arg(long, default_value = "500ms", value_parser = duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    #[command(flatten)]
    pub(crate) tls: Box<TlsArgs>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Writes a picture of throughput and latency against connections
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ModelsArgs {
    /// Which values of engine.backend, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = Combination::BACKENDS)]
    pub(crate) backend: Vec<String>,
    /// Which values of engine.trigger [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = Combination::TRIGGERS)]
    pub(crate) trigger: Vec<String>,
    /// Which values of engine.dispatch [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = Combination::DISPATCHES)]
    pub(crate) dispatch: Vec<String>,
    /// Which values of process.accept [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = Combination::ACCEPTS)]
    pub(crate) accept: Vec<String>,
    /// Which values of engine.acceptor [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = Combination::ACCEPTORS)]
    pub(crate) acceptor: Vec<String>,
    /// Event loops in each worker, besides one
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) loops: u16,
    /// Worker processes [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) workers: Option<u16>,
    /// Which loads, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME", default_value = "echo,http,msg", value_parser = models::Scenario::NAMES)]
    pub(crate) scenario: Vec<String>,
    /// Connections that ask
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = connections)]
    pub(crate) connections: usize,
    /// How often each is measured; the rounds of all combinations alternate
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100).map(usize::from))]
    pub(crate) rounds: usize,
    /// How long each time [default: 1s, quick: 250ms]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    duration: Option<Duration>,
    /// How long before anything counts [default: 300ms, quick: 100ms]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    warmup: Option<Duration>,
    /// How long system calls are counted, once for each; 0s: not at all [default: 300ms, quick: 0s]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    trace: Option<Duration>,
    /// What counts them: perf, strace, or auto, which takes strace only when perf cannot
    #[arg(long, default_value_t = CountingTool::Auto, value_name = "TOOL")]
    count_with: CountingTool,
    /// After this time nothing further is begun
    #[arg(long, default_value = "30m", value_parser = duration, value_name = "TIME")]
    pub(crate) limit: Duration,
    /// Short times: an order of magnitude, not a figure to keep
    #[arg(long)]
    quick: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Writes a picture of the throughput
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

impl ModelsArgs {
    /// Those that none of the filters takes away.
    pub(crate) fn combinations(&self) -> Vec<Combination> {
        let is_in = |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
        let wanted = |combination: &Combination| {
            let trigger =
                combination.trigger.map_or(self.trigger.is_empty(), |name| is_in(&self.trigger, name));
            trigger
                && is_in(&self.backend, combination.backend)
                && is_in(&self.dispatch, combination.dispatch)
                && is_in(&self.accept, combination.accept)
                && is_in(&self.acceptor, combination.acceptor)
        };
        Combination::all(self.loops).into_iter().filter(wanted).collect()
    }

    /// A plain loop on poll(2) stands beside all combinations, and not beside a few that were asked for.
    pub(crate) fn baseline(&self) -> bool {
        let filters = [&self.backend, &self.trigger, &self.dispatch, &self.accept, &self.acceptor];
        filters.iter().all(|filter| filter.is_empty())
    }

    pub(crate) fn times(&self) -> Times {
        let or = |said: Option<Duration>, long, quick| {
            said.unwrap_or(Duration::from_millis(if self.quick { quick } else { long }))
        };
        Times {
            warmup: or(self.warmup, 300, 100),
            measure: or(self.duration, 1000, 250),
            trace: or(self.trace, 300, 0),
            tool: self.count_with,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct GuardArgs {
    #[arg(long)]
    pub(crate) parent: u32,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EngineArgs {
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
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl EngineArgs {
    pub(crate) fn models(&self) -> Vec<String> {
        if self.model.is_empty() { Model::NAMES.map(str::to_owned).to_vec() } else { self.model.clone() }
    }

    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        if self.scenario.is_empty() { Scenario::ALL.to_vec() } else { self.scenario.clone() }
    }
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
    /// As JSON
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
    pub(crate) patience: Duration,
}

/// At least one, and not more than a process may have descriptors.
fn connections(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().map_err(|error| error.to_string())?;
    if (1..=1_000_000).contains(&number) { Ok(number) } else { Err("1 to 1000000 connections".to_owned()) }
}

/// A day at most.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST { Err("it must not be longer than a day".to_owned()) } else { Ok(duration) }
}

const LONGEST: Duration = Duration::from_secs(86_400);

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::ALL
        .into_iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| format!("there are {}", Scenario::ALL.map(|scenario| scenario.name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, CommandArgs};
    use clap::Parser;

    fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
        let words = ["tidegate", "bench"].into_iter().chain(line.split_whitespace());
        let bench = |args: Args| match args.command {
            Some(CommandArgs::Bench(bench)) => Some(bench),
            _ => None,
        };
        Args::try_parse_from(words).map(|args| bench(args).expect("the line begins with bench"))
    }

    #[test]
    fn all_models_and_scenarios_of_the_engine_are_the_default() {
        let BenchArgs::Engine(args) = parse("engine").unwrap() else { panic!("another command") };
        assert_eq!(args.models(), Model::NAMES);
        assert_eq!(args.scenarios(), Scenario::ALL);
        assert_eq!((args.rounds, args.duration, args.json), (3, Duration::from_secs(2), false));
    }

    #[test]
    fn some_are_named_with_commas() {
        let line = "engine --model poll,uring-inline --scenario hello,10k-1% --rounds 1 --trace 0s --count-with strace --json";
        let BenchArgs::Engine(args) = parse(line).unwrap() else { panic!("another command") };
        assert_eq!(args.models(), ["poll", "uring-inline"]);
        assert_eq!(args.scenarios().iter().map(|s| s.name).collect::<Vec<_>>(), ["hello", "10k-1%"]);
        assert!(args.trace.is_zero() && args.json);
        assert_eq!(args.count_with, CountingTool::Strace);
        assert!(parse("engine --model select").unwrap_err().to_string().contains("epoll-edge-inline"));
        assert!(parse("engine --scenario h").unwrap_err().to_string().contains("there are hello, pipelined"));
        assert!(parse("engine --rounds 0").is_err());
        assert!(parse("engine --pool-threads 0").is_err());
    }

    #[test]
    fn filters_take_combinations_away() {
        let BenchArgs::Models(all) = parse("models").unwrap() else { panic!("another command") };
        assert_eq!(all.combinations(), Combination::all(2));
        assert!(all.baseline() && all.times().measure == Duration::from_secs(1));
        let line = "models --backend epoll --trigger edge --dispatch inline,pool --accept shared --acceptor each --quick";
        let BenchArgs::Models(few) = parse(line).unwrap() else { panic!("another command") };
        let names: Vec<String> = few.combinations().iter().map(ToString::to_string).collect();
        let expected = ["inline shared", "inline shared 2 loops", "pool shared", "pool shared 2 loops"];
        assert_eq!(names, expected.map(|name| format!("epoll-edge {name}")));
        assert!(!few.baseline() && few.times().measure == Duration::from_millis(250));
        let BenchArgs::Models(few) = parse("models --trigger level --duration 2s").unwrap() else { panic!() };
        assert!(few.combinations().iter().all(|one| one.trigger == Some("level")));
        assert!(parse("models --accept all").unwrap_err().to_string().contains("handoff"));
        assert!(parse("models --scenario ftp").is_err());
    }

    #[test]
    fn a_plan_has_stages_of_its_own_or_those_that_are_named() {
        let BenchArgs::Plan(args) = parse("plan --to [::1]:80 --ask http --path /a").unwrap() else {
            panic!()
        };
        assert!(args.connections.is_empty() && args.duration == Duration::from_secs(5));
        let BenchArgs::Plan(args) = parse("plan --to h:80 --connections 1,2,8000").unwrap() else { panic!() };
        assert_eq!(args.connections, [1, 2, 8000]);
        for bad in [
            "plan",
            "plan --to h:80 --ask ftp",
            "plan --to h:80 --connections 0",
            "plan --to h:80 --connections 1 --max-connections 2",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hold_has_the_figures_of_its_name() {
        let line = "hold --to 127.0.0.1:7 --to 127.0.0.9:7 --every 30s --for 1m --server-pid 12";
        let BenchArgs::Hold(args) = parse(line).unwrap() else { panic!("another command") };
        assert_eq!((args.connections, args.processes), (100_000, 6));
        assert_eq!((args.every, args.time), (Duration::from_secs(30), Duration::from_secs(60)));
        assert_eq!((args.to.len(), args.server_pid), (2, Some(12)));
        assert!(parse("hold").is_err());
        assert!(parse("hold --to 127.0.0.1:7 --for 2d").is_err());
    }
}
