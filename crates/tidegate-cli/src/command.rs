//! What a command line means, and who carries it out.
//!
//! The one invariant: a [`Request`] needs no further look at what was typed.

use std::time::Duration;

use tidegate::config::LoadOptions;
use tidegate_capture::ProtocolChoice;

use crate::args::{
    Args, CertArgs, CommandArgs, ConfigArgs, LatencyArgs, LogArgs, LoginArgs, MsgArgs, ProtocolArg,
    TargetArgs, WhoseArgs,
};
use crate::bench::{self, BenchArgs};
use crate::cert::{self, SelfSigned};
use crate::connections::{self, Listing};
use crate::control::{self, StopKind};
use crate::failure::Failure;
use crate::latency::{self, Study};
use crate::log_tail::{self, TailForm, Tailing};
use crate::msg::{self, Ask, Login, Message};
use crate::orders::{self, Order, Whose};
use crate::output::Form;
use crate::{configuration, run, users};

/// A command, and where the configuration for it is.
#[derive(Debug)]
pub(crate) struct Request {
    options: LoadOptions,
    command: Command,
}

#[derive(Debug)]
enum Command {
    Run,
    Stop(StopKind),
    Reopen,
    Status(Form),
    /// An order, and how long it may take when it is one that takes time.
    Order(Order, Option<Duration>),
    Connections(Listing),
    Check(Form),
    Config(Form),
    Cert(SelfSigned),
    Message(Message),
    /// For this user.
    Password(String),
    Latency(Study),
    LogTail(Tailing),
    Start,
    Bench(Box<BenchArgs>),
}

impl Request {
    /// What was meant by what was typed.
    pub(crate) fn of(args: Args) -> Self {
        let (behind, command) = match args.command {
            None => (ConfigArgs::default(), Command::Run),
            Some(command) => Command::of(command),
        };
        let set = args.config.set.into_iter().chain(behind.set).collect();
        // The one behind the command is the nearer one.
        let file = behind.file.or(args.config.file);
        Self { options: LoadOptions { file, set, ..LoadOptions::from_process() }, command }
    }

    /// Does what is asked.
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        let options = &self.options;
        match self.command {
            Command::Run => run::run(options),
            Command::Stop(kind) => control::stop(options, kind),
            Command::Reopen => control::reopen(options),
            Command::Status(form) => control::status(options, form),
            Command::Order(order, bound) => orders::give(options, &order, bound),
            Command::Connections(listing) => connections::list(options, &listing),
            Command::Check(form) => configuration::check(options, form),
            Command::Config(form) => configuration::show(options, form),
            Command::Cert(wanted) => cert::make(&wanted),
            Command::Message(message) => msg::send(&message),
            Command::Password(user) => users::print_line(&user),
            Command::Latency(study) => latency::tell(&study),
            Command::LogTail(tailing) => log_tail::tail(options, &tailing),
            Command::Start => run::start(options),
            Command::Bench(bench) => bench::carry_out(*bench),
        }
    }
}

impl Command {
    fn of(typed: CommandArgs) -> (ConfigArgs, Self) {
        match typed {
            CommandArgs::Run { config } => (config, Self::Run),
            CommandArgs::Start { config } => (config, Self::Start),
            CommandArgs::Reload { config, patience } => (config, Self::long(Order::Reload, patience.timeout)),
            CommandArgs::Upgrade { config, patience } => {
                (config, Self::long(Order::Upgrade, patience.timeout))
            }
            CommandArgs::Drain { config, worker, patience } => {
                (config, Self::long(Order::Drain(worker), patience.timeout))
            }
            CommandArgs::Pause { config, whose: of } => (config, Self::short(Order::Pause(whose(of)))),
            CommandArgs::Resume { config, whose: of } => (config, Self::short(Order::Resume(whose(of)))),
            CommandArgs::Close { config, id } => (config, Self::short(Order::Close(id))),
            CommandArgs::Loglevel { config, level } => (config, Self::short(Order::LogLevel(level))),
            CommandArgs::Connections { config, after, limit, all, json } => {
                (config, Self::Connections(Listing { after, limit, all, form: Form::of(json) }))
            }
            CommandArgs::Stop { config, now: false } => (config, Self::Stop(StopKind::Graceful)),
            CommandArgs::Stop { config, now: true } => (config, Self::Stop(StopKind::Now)),
            CommandArgs::Reopen { config } => (config, Self::Reopen),
            CommandArgs::Status { config, json } => (config, Self::Status(Form::of(json))),
            CommandArgs::Check { config, json } => (config, Self::Check(Form::of(json))),
            CommandArgs::Config { config, json } => (config, Self::Config(Form::of(json))),
            CommandArgs::Cert(CertArgs { self_signed: _, hosts, days, cert, key }) => {
                (ConfigArgs::default(), Self::Cert(SelfSigned { hosts, days, cert, key }))
            }
            CommandArgs::Msg(typed) => (ConfigArgs::default(), Self::Message(message(typed))),
            CommandArgs::Latency(typed) => (ConfigArgs::default(), Self::Latency(study(typed))),
            CommandArgs::Bench(typed) => (ConfigArgs::default(), Self::Bench(Box::new(typed))),
            CommandArgs::Password { user } => (ConfigArgs::default(), Self::Password(user)),
            CommandArgs::Log(LogArgs::Tail { config, follow, lines, level, target, body, json }) => {
                let options = tidegate::log::TailOptions { lines, least: level, target, follow };
                let form = match (body, json) {
                    (true, _) => TailForm::Body,
                    (false, true) => TailForm::Json,
                    (false, false) => TailForm::Text,
                };
                (config, Self::LogTail(Tailing { options, form }))
            }
        }
    }

    fn long(order: Order, bound: Duration) -> Self {
        Self::Order(order, Some(bound))
    }

    fn short(order: Order) -> Self {
        Self::Order(order, None)
    }
}

/// The command line has one of them.
fn whose(typed: WhoseArgs) -> Whose {
    match (typed.listener, typed.worker) {
        (Some(name), _) => Whose::Listener(name),
        (None, number) => Whose::Worker(number.unwrap_or_default()),
    }
}

fn study(typed: LatencyArgs) -> Study {
    let protocol = match typed.protocol {
        ProtocolArg::Auto => ProtocolChoice::Auto,
        ProtocolArg::Http => ProtocolChoice::Http,
        ProtocolArg::Frame => ProtocolChoice::Frame,
        ProtocolArg::None => ProtocolChoice::None,
    };
    let options = tidegate_capture::Options { port: typed.port, protocol, listed: typed.connections };
    Study { file: typed.file, options, svg: typed.svg, form: Form::of(typed.json) }
}

fn message(typed: MsgArgs) -> Message {
    let to = |target: TargetArgs, ask| Message {
        address: target.address,
        ask,
        count: target.count,
        timeout: target.timeout,
        form: Form::of(target.json),
    };
    let with = |login: LoginArgs| Login { user: login.user, password: login.password };
    match typed {
        MsgArgs::Ping { target } => to(target, Ask::Ping),
        MsgArgs::Register { target, login, kind } => to(target, Ask::Register { login: with(login), kind }),
        MsgArgs::Login { target, login } => to(target, Ask::Login(with(login))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn options(typed: &[&str]) -> LoadOptions {
        Request::of(Args::try_parse_from(typed).unwrap()).options
    }

    #[test]
    fn no_command_is_run() {
        let request = Request::of(Args::try_parse_from(["tidegate"]).unwrap());
        assert!(matches!(request.command, Command::Run));
    }

    #[test]
    fn settings_before_and_behind_the_command_are_all_kept_in_order() {
        let options = options(&["tidegate", "--set", "a=1", "--set", "b=2", "run", "--set", "c=3"]);
        assert_eq!(options.set, ["a=1", "b=2", "c=3"]);
    }

    #[test]
    fn the_file_behind_the_command_is_the_nearer_one() {
        let file = |typed: &[&str]| options(typed).file.unwrap().into_os_string().into_string().unwrap();
        assert_eq!(file(&["tidegate", "--config", "a", "check"]), "a");
        assert_eq!(file(&["tidegate", "--config", "a", "check", "--config", "b"]), "b");
    }
}
