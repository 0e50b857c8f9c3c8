//! `tidegate-bench`: measures the concurrency models, loads a server, holds many connections.
//!
//! `args` is what was typed; what it means is done by the library, and shown here. Results go to standard output, progress
//! and errors to standard error. The one invariant: exit code 0 means that every answer was right.
#![forbid(unsafe_code)]

mod args;
mod progress;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use serde_json::json;
use tidegate_bench::hold::{HoldPlan, MemberPlan, hold, run_member};
use tidegate_bench::matrix::{Matrix, RowResult, run};
use tidegate_bench::measure::{Times, pin};
use tidegate_bench::{
    Exchange, Load, LoadPlan, Model, Server, ServiceKind, Settings, ready_line, refusal_line,
};

use args::{Args, Command, HoldArgs, LoadArgs, MemberArgs, ModelsArgs, ServeArgs};
use progress::ProgressLine;

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Models(args) => models(&args),
        Command::Load(args) => load(&args),
        Command::Hold(args) => hold_connections(&args),
        Command::Serve(args) => serve(&args),
        Command::HoldMember(args) => hold_member(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // In one piece, since several processes share it. When nobody reads it there is nobody left to be told.
            let _ = io::stderr().write_all(format!("tidegate-bench: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn models(args: &ModelsArgs) -> Result<ExitCode> {
    if let Some(cpu) = args.client_cpu {
        pin(cpu).with_context(|| format!("keep the client on CPU {cpu}"))?;
    }
    let matrix = Matrix {
        program: std::env::current_exe().context("find this program")?,
        models: args.models(),
        scenarios: args.scenarios(),
        rounds: args.rounds,
        times: Times {
            warmup: args.warmup,
            measure: args.duration,
            trace: args.trace,
            tool: args.count_with,
        },
        server_cpu: args.server_cpu,
        pool_threads: args.pool_threads,
    };
    let mut line = ProgressLine::default();
    let report = run(&matrix, &mut |now| {
        line.show(&format!("{}/{}: {}, {}", now.done + 1, now.all, now.scenario, now.model));
    });
    line.clear();
    if args.json {
        print(&format!("{}\n", json!(report)))?
    } else {
        print(&report.markdown())?
    }
    let mut rows = report.scenarios.iter().flat_map(|scenario| &scenario.rows);
    let wrong =
        rows.any(|row| matches!(&row.result, RowResult::Measured(row) if row.wrong > 0 || row.lost > 0));
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn load(args: &LoadArgs) -> Result<ExitCode> {
    if let Some(cpu) = args.cpu {
        pin(cpu).with_context(|| format!("keep the client on CPU {cpu}"))?;
    }
    let exchange = match args.ask {
        ServiceKind::Hello => Exchange::hello(args.pipeline),
        ServiceKind::Echo | ServiceKind::Sleep => Exchange::echo(args.size, args.pipeline),
    }?;
    let mut load = Load::connect(LoadPlan {
        targets: args.to.clone(),
        sources: args.from.clone(),
        connections: args.connections,
        active: args.active,
        exchange,
    })?;
    let warmed = load.run(args.warmup)?;
    let outcome = load.run(args.duration)?;
    let (wrong, lost) = (warmed.wrong + outcome.wrong, warmed.lost + outcome.lost);
    let latency = outcome.latency.summary();
    if args.json {
        let requests = outcome.answers();
        let rate = outcome.rate();
        let text = json!({
            "requests": requests, "rate": rate, "wrong": wrong, "lost": lost,
            "p50_us": latency.p50_us, "p99_us": latency.p99_us, "max_us": latency.max_us,
        });
        print(&format!("{text}\n"))?;
    } else {
        print(&format!(
            "{:.0} requests/s on {} of {} connections, p50 {:.0} us, p99 {:.0} us, longest {:.0} us, {wrong} wrong, {lost} lost\n",
            outcome.rate(),
            load.active(),
            args.connections,
            latency.p50_us,
            latency.p99_us,
            latency.max_us,
        ))?;
    }
    Ok(if wrong + lost > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn hold_connections(args: &HoldArgs) -> Result<ExitCode> {
    let plan = HoldPlan {
        program: std::env::current_exe().context("find this program")?,
        targets: args.to.clone(),
        connections: args.connections,
        processes: args.processes,
        every: args.every,
        time: args.time,
        server: args.server_pid,
    };
    let mut line = ProgressLine::default();
    let report = hold(&plan, &mut |now| line.show(&progress::of_hold(now, &plan)));
    line.clear();
    let report = report?;
    let held = report.held();
    if args.json {
        let mut value = json!(report);
        value["held"] = held.into();
        print(&format!("{value}\n"))?;
    } else {
        print(&report.to_string())?;
        print(if held { "held: yes\n" } else { "held: NO\n" })?;
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves until standard input ends.
fn serve(args: &ServeArgs) -> Result<ExitCode> {
    let settings = Settings { max_connections: args.max_connections, pool_threads: args.pool_threads };
    let started = start(args, &settings);
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            print(&refusal_line(&format!("{error:#}")))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    print(&ready_line(server.address()))?;
    io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink()).context("read standard input")?;
    server.stop().context("stop the server")?;
    Ok(ExitCode::SUCCESS)
}

fn start(args: &ServeArgs, settings: &Settings) -> Result<Server> {
    if let Some(cpu) = args.cpu {
        pin(cpu).with_context(|| format!("keep the server on CPU {cpu}"))?;
    }
    let model = Model::named(&args.model, settings)?;
    Server::start(model, settings, args.service, args.listen).map_err(|error| anyhow!(error))
}

fn hold_member(args: MemberArgs) -> Result<ExitCode> {
    let plan = MemberPlan {
        targets: args.to,
        sources: args.from,
        connections: args.connections,
        every: args.every,
        time: args.time,
        last_answers: args.last_answers,
    };
    run_member(&plan, &mut io::stdin().lock(), &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
}
