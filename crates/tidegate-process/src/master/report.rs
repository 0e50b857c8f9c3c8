//! What the supervisor reports, as records for people.

use tidegate_sys::process::ExitStatus;

use super::Master;
use super::hooks::MasterHooks;
use crate::role::Role;
use crate::supervisor::{ChildId, Report};

impl<H: MasterHooks> Master<H> {
    pub(super) fn report(&mut self, report: Report) {
        let role = |child: ChildId| self.supervisor.child(child).map_or(Role::Probe, |slot| slot.role);
        match report {
            Report::Ready { child, took } => tracing::info!(role = %role(child), ?took, "{report}"),
            Report::Exited { child, pid, status, expected: true } => {
                tracing::info!(role = %role(child), pid, %status, "{report}");
            }
            Report::Exited { child, pid, status, expected: false } => {
                tracing::warn!(role = %role(child), pid, %status, "{report}");
                self.last_pids.insert(child, pid);
            }
            // It was told to end: by a signal of its own, or after an upgrade.
            Report::Restart { child, early_deaths: 0, last_exit: Some(ExitStatus::Code(0)), .. } => {
                tracing::info!(role = %role(child), "{report}");
            }
            Report::Restart { child, delay, early_deaths, last_exit } => {
                let last_exit = last_exit.map(|status: ExitStatus| status.to_string());
                // Once is bad luck; from the second time on somebody has to look, and sees here what it said last.
                let role = role(child);
                let pid = self.last_pids.remove(&child).filter(|_| early_deaths > 1);
                let last_records = pid.map(|pid| self.hooks.last_words(pid).join(" | "));
                tracing::warn!(%role, ?delay, early_deaths, last_exit, last_records, "{report}");
            }
            Report::StartFailed { child, code } => tracing::error!(role = %role(child), code, "{report}"),
            Report::LogServerLate { .. } => tracing::error!("{report}"),
            Report::Stopping(_) => tracing::info!("{report}"),
            other => {
                let role = other.child().map(|child| tracing::field::display(role(child)));
                tracing::warn!(role, "{other}");
            }
        }
    }
}
