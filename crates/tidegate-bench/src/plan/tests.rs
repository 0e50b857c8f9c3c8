//! The stages of a plan on servers that are formulas, and a whole plan on one that is not.

use super::*;

/// A stage in which so many answers came per second.
fn stage(rate: f64) -> StageResult {
    let latency = Percentiles { p50_us: 1e6 / rate.max(1.0), ..Percentiles::default() };
    StageResult::Measured(Stage { rate, latency, ..Stage::default() })
}

/// The connections of each stage, by role, and why there were no more.
fn stages_of(
    max: usize,
    rate: impl Fn(usize) -> StageResult,
) -> (Vec<(Role, usize)>, Vec<StageReport>, String) {
    let mut seen = Vec::new();
    let (stages, ended) = find(max, &mut |role, connections| {
        seen.push((role, connections));
        Some(rate(connections))
    });
    (seen, stages, ended)
}

/// A server that serves 1000 requests a second on each connection, up to a limit.
fn up_to(limit: f64) -> impl Fn(usize) -> StageResult {
    move |connections| stage((connections as f64 * 1000.0).min(limit))
}

#[test]
fn the_stress_ends_when_throughput_rises_no_more() {
    let (seen, stages, ended) = stages_of(1_000_000, up_to(1_000_000.0));
    let stress: Vec<usize> = seen.iter().filter(|(role, _)| *role == Role::Stress).map(|(_, n)| *n).collect();
    assert_eq!(&seen[..2], [(Role::Single, 1), (Role::Concurrent, 400)]);
    assert_eq!(stress, [800, 1600, 3200, 6400]);
    assert!(ended.contains("rose no more"), "{ended}");
    assert_eq!(stages.len(), seen.len());
}

#[test]
fn a_server_that_is_full_at_once_is_looked_at_between_one_and_many() {
    let (seen, stages, _) = stages_of(1_000_000, up_to(64_000.0));
    let knees: Vec<usize> = seen.iter().filter(|(role, _)| *role == Role::Knee).map(|(_, n)| *n).collect();
    // The roots of 1 x 400, of 20 x 400 and of 20 x 89.
    assert_eq!(knees, [20, 89, 42]);
    let mut stages = stages;
    stages.sort_by_key(|stage| stage.connections);
    let knee = knee(&stages).unwrap();
    assert_eq!((knee.connections, knee.rate, knee.share), (89, 64_000.0, 1.0));
}

#[test]
fn a_stage_in_which_something_fails_ends_the_stress_and_is_no_knee() {
    let (seen, stages, ended) = stages_of(1_000_000, |connections| match connections {
        800.. => StageResult::Measured(Stage { failed: 1, rate: 9e9, ..Stage::default() }),
        _ => stage(connections as f64),
    });
    assert!(!seen.contains(&(Role::Stress, 1600)) && ended == "not all of 800 connections were served");
    assert!(knee(&stages).unwrap().connections <= 400);
    let (_, stages, _) = stages_of(9, |_| StageResult::Failed("refused".into()));
    assert_eq!((stages.len(), knee(&stages)), (1, None));
}

#[test]
fn the_limit_of_connections_holds_for_every_stage() {
    let (seen, _, ended) = stages_of(2000, up_to(1e12));
    assert!(seen.iter().all(|(_, connections)| *connections <= 2000), "{seen:?}");
    assert_eq!(ended, "3200 connections would be more than 2000");
}

#[test]
fn a_server_that_is_not_there_is_a_failed_stage() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    drop(listener);
    let moment = Duration::from_millis(1);
    let ask = crate::Ask::Echo { size: 64 };
    let load = LoadSpec { warmup: moment, duration: moment, ..LoadSpec::new(vec![to.into()], ask) };
    let stages = Stages::Find { max_connections: 10_000 };
    let report = carry_out(&Plan { load, stages }, &Stop::default(), &mut |_, _| {});
    assert_eq!((report.stages.len(), report.is_right()), (1, false));
    let StageResult::Failed(reason) = &report.stages[0].result else { panic!("{report:?}") };
    assert!(reason.contains("Connection refused"), "{reason}");
    assert!(report.server.is_err() && report.knee.is_none());
    assert!(report.svg().contains("</svg>"));
}

#[test]
fn a_plan_that_is_stopped_has_the_stages_until_then() {
    let mut left = 2;
    let (stages, ended) = find(10_000, &mut |_, connections| {
        left -= 1;
        (left >= 0).then(|| stage(connections as f64))
    });
    assert_eq!((stages.len(), &*ended), (2, STOPPED));
    let (stages, ended) = fixed(&[1, 2], &mut |_, _| None);
    assert_eq!((stages.len(), &*ended), (0, STOPPED));
}
