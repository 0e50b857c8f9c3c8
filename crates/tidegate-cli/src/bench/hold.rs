//! `tidegate bench hold`: many connections at once, over several processes of this program.

use std::io::{self, BufReader};

use anyhow::Context;
use serde_json::json;
use tidegate_bench::hold::{HoldPlan, MemberPlan, run_member};

use super::args::{HoldArgs, MemberArgs};
use super::progress::{ProgressLine, of_hold};
use super::told;
use crate::failure::Failure;
use crate::output::{print, print_json};

/// Holds them, and shows what came of it.
pub(super) fn hold(args: &HoldArgs) -> Result<(), Failure> {
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
    let report = tidegate_bench::hold::hold(&plan, &mut |now| line.show(&of_hold(now, &plan)));
    line.clear();
    let report = report.map_err(anyhow::Error::new)?;
    let held = report.held();
    if args.json {
        let mut value = json!(report);
        value["held"] = held.into();
        print_json(&value)?;
    } else {
        print(format!("{report}held: {}\n", if held { "yes" } else { "NO" }))?;
    }
    told(held)
}

/// Is one of the processes.
pub(super) fn member(args: MemberArgs) -> Result<(), Failure> {
    let plan = MemberPlan {
        targets: args.to,
        sources: args.from,
        connections: args.connections,
        every: args.every,
        time: args.time,
        patience: args.patience,
    };
    run_member(&plan, BufReader::new(io::stdin()), &mut io::stdout().lock()).map_err(anyhow::Error::new)?;
    Ok(())
}
