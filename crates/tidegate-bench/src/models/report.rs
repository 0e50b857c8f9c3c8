//! `ModelsReport`: tables of models, best first, and what could not be measured.
//!
//! Invariant: rows with figures stand above rows without; among them a higher rate stands above a lower one.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Combination, Figures, Scenario};
use crate::chart::{Bar, BarChart, Picture, page};

/// Everything that was measured, and where.
#[derive(Clone, Debug, Serialize)]
pub struct ModelsReport {
    /// The kernel's release.
    pub kernel: String,
    /// Processors of this machine that this process may use.
    pub processors: usize,
    /// Worker processes of each server.
    pub workers: u16,
    /// How often each was measured.
    pub rounds: usize,
    /// How long each time, in seconds.
    pub seconds: f64,
    /// How long everything took, in seconds.
    pub took_s: f64,
    /// In the order they were asked for.
    pub scenarios: Vec<ScenarioTable>,
    /// Combinations that the configuration refuses, by its reason.
    pub refused: Vec<Refused>,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioTable {
    /// What it is called.
    pub name: String,
    /// What was asked, in words.
    pub question: String,
    /// Connections that asked.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: usize,
    /// Best first.
    pub rows: Vec<Row>,
}

/// One model in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The model.
    pub model: Kind,
    /// Its settings of the configuration, as `KEY=VALUE`; none for the baseline.
    pub settings: Vec<String>,
    /// What was measured, or why nothing was.
    #[serde(flatten)]
    pub result: RowResult,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowResult {
    /// Medians.
    Measured(Box<Figures>),
    /// Why nothing was measured.
    Failed(String),
}

/// Combinations that are refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// In the words of the configuration.
    pub reason: String,
    /// Which.
    pub models: Vec<String>,
}

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tidegate, so combined.
    Combination(Combination),
    /// The loop on poll(2), see [`poll_server`](crate::poll_server).
    Baseline,
}

impl Kind {
    fn settings(&self) -> Vec<String> {
        match self {
            Self::Combination(combination) => combination.settings(),
            Self::Baseline => Vec::new(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Combination(combination) => combination.fmt(f),
            Self::Baseline => f.write_str("(a plain loop on poll)"),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl ModelsReport {
    /// Whether something was measured and every answer was right. What could not be measured is no wrong answer.
    #[must_use]
    pub fn is_right(&self) -> bool {
        let mut rows = self.scenarios.iter().flat_map(|scenario| &scenario.rows);
        rows.clone().any(|row| matches!(row.result, RowResult::Measured(_)))
            && rows.all(
                |row| !matches!(&row.result, RowResult::Measured(figures) if figures.failures.total() > 0),
            )
    }

    /// The rates as bars, as a picture in SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let chart = |scenario: &ScenarioTable| {
            let bar = |row: &Row| match &row.result {
                RowResult::Measured(figures) => {
                    Some(Bar { name: row.model.to_string(), value: figures.rate })
                }
                RowResult::Failed(_) => None,
            };
            BarChart {
                title: format!(
                    "{}: {}, {} connections",
                    scenario.name, scenario.question, scenario.connections
                ),
                label: "requests/s".to_owned(),
                bars: scenario.rows.iter().filter_map(bar).collect(),
            }
        };
        let charts: Vec<BarChart> = self.scenarios.iter().map(chart).collect();
        page(&charts.iter().map(Picture::Bars).collect::<Vec<_>>())
    }
}

/// What has been taken so far.
#[derive(Debug)]
pub(super) struct Taken {
    /// By scenario; by model in the order in which they were measured first.
    rows: Vec<Vec<(Kind, Rounds)>>,
    refused: Vec<Refused>,
}

/// Figures of each round, or why there are none.
type Rounds = Result<Vec<Figures>, String>;

impl Taken {
    pub(super) fn new(scenarios: usize) -> Self {
        Self { rows: vec![Vec::new(); scenarios], refused: Vec::new() }
    }

    pub(super) fn refuse(&mut self, reason: String, model: String) {
        match self.refused.iter_mut().find(|refused| refused.reason == reason) {
            Some(refused) => refused.models.push(model),
            None => self.refused.push(Refused { reason, models: vec![model] }),
        }
    }

    /// A round of a model in a scenario. A reason once is the reason of the row.
    pub(super) fn add(&mut self, scenario: usize, model: Kind, figures: Result<Figures, String>) {
        let rows = &mut self.rows[scenario];
        match (rows.iter_mut().find(|(kind, _)| *kind == model), figures) {
            (Some((_, taken)), Ok(figures)) => {
                if let Ok(rounds) = taken {
                    rounds.push(figures);
                }
            }
            (Some((_, taken)), Err(reason)) => *taken = Err(reason),
            (None, figures) => rows.push((model, figures.map(|figures| vec![figures]))),
        }
    }

    /// A model that could not be measured in any scenario. What it has of earlier rounds stays.
    pub(super) fn fail(&mut self, model: Kind, reason: &str) {
        for scenario in 0..self.rows.len() {
            if !self.rows[scenario].iter().any(|(kind, _)| *kind == model) {
                self.add(scenario, model, Err(reason.to_owned()));
            }
        }
    }

    pub(super) fn tables(&self, scenarios: &[Scenario]) -> Vec<ScenarioTable> {
        let table = |(scenario, taken): (&Scenario, &Vec<(Kind, Rounds)>)| {
            let row = |(model, taken): &(Kind, Rounds)| {
                let median =
                    taken.as_ref().map_err(Clone::clone).map(|rounds| Figures::median(rounds).map(Box::new));
                let result = match median {
                    Ok(Some(figures)) => RowResult::Measured(figures),
                    Ok(None) => RowResult::Failed("no rounds".to_owned()),
                    Err(reason) => RowResult::Failed(reason),
                };
                Row { model: *model, settings: model.settings(), result }
            };
            let mut rows: Vec<Row> = taken.iter().map(row).collect();
            rows.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
            ScenarioTable {
                name: scenario.name.clone(),
                question: scenario.ask.to_string(),
                connections: scenario.connections,
                pipeline: scenario.pipeline,
                rows,
            }
        };
        scenarios.iter().zip(&self.rows).map(table).collect()
    }

    pub(super) fn into_refused(self) -> Vec<Refused> {
        self.refused
    }
}

/// Below every rate where there is none.
fn rate(row: &Row) -> f64 {
    match &row.result {
        RowResult::Measured(figures) => figures.rate,
        RowResult::Failed(_) => -1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::row::tests::figures;

    #[test]
    fn the_best_stands_first_and_what_failed_last() {
        let all = Combination::all(1);
        let model = |nth: usize| Kind::Combination(all[nth]);
        let mut taken = Taken::new(1);
        taken.add(0, model(0), Ok(figures(1.0)));
        taken.add(0, model(1), Ok(figures(5.0)));
        taken.add(0, model(2), Ok(figures(9.0)));
        taken.add(0, model(2), Err("it died".into()));
        taken.add(0, model(0), Ok(figures(3.0)));
        taken.fail(model(0), "the time was over");
        taken.fail(Kind::Baseline, "not there");
        taken.refuse("because".into(), "a".into());
        taken.refuse("because".into(), "b".into());
        let scenarios = [Scenario::named("echo", 4).unwrap()];
        let rows = taken.tables(&scenarios).remove(0).rows;
        assert_eq!(
            rows.iter().map(|row| row.model).collect::<Vec<_>>(),
            [model(1), model(0), model(2), Kind::Baseline]
        );
        assert!(matches!(&rows[1].result, RowResult::Measured(figures) if figures.rate == 2.0));
        assert_eq!(rows[2].result, RowResult::Failed("it died".into()));
        assert_eq!(
            taken.into_refused(),
            [Refused { reason: "because".into(), models: vec!["a".into(), "b".into()] }]
        );
    }
}
