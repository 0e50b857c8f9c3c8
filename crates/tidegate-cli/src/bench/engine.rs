//! `tidegate bench engine`: the models of the engine alone, and the server that each of them is measured in.

use std::io::{self, Read};

use anyhow::{Context, anyhow};
use serde_json::json;
use tidegate_bench::matrix::{Matrix, RowResult, run};
use tidegate_bench::measure::{Times, pin};
use tidegate_bench::{Model, Server, Settings, Stop, ready_line, refusal_line};

use super::args::{EngineArgs, ServeArgs};
use super::progress::ProgressLine;
use super::told;
use crate::failure::Failure;
use crate::output::{print, print_json};

/// Measures each model in each scenario, and shows a table.
pub(super) fn measure(args: &EngineArgs) -> Result<(), Failure> {
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
    let report = run(&matrix, &Stop::on_signal().context("SIGINT and SIGTERM")?, &mut |now| {
        line.show(&format!("{}/{}: {}, {}", now.done + 1, now.all, now.scenario, now.model));
    });
    line.clear();
    if args.json {
        print_json(&json!(report))?
    } else {
        print(report.markdown())?
    }
    let mut rows = report.scenarios.iter().flat_map(|scenario| &scenario.rows);
    let wrong = rows.any(|row| matches!(&row.result, RowResult::Measured(row) if row.failures.total() > 0));
    told(!wrong)
}

/// Serves until standard input ends.
pub(super) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let settings = Settings { max_connections: args.max_connections, pool_threads: args.pool_threads };
    let server = match start(args, &settings) {
        Ok(server) => server,
        Err(error) => {
            print(refusal_line(&format!("{error:#}")))?;
            return Err(Failure::FailedAndTold);
        }
    };
    print(ready_line(server.address()))?;
    io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink()).context("read standard input")?;
    server.stop().context("stop the server")?;
    Ok(())
}

fn start(args: &ServeArgs, settings: &Settings) -> anyhow::Result<Server> {
    if let Some(cpu) = args.cpu {
        pin(cpu).with_context(|| format!("keep the server on CPU {cpu}"))?;
    }
    let model = Model::named(&args.model, settings)?;
    Server::start(model, settings, args.service, args.listen).map_err(|error| anyhow!(error))
}
