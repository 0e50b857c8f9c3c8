//! What the operations manual promises is what the program has.

use std::collections::BTreeSet;

use tempfile::tempdir;
use tidegate::{End, Reason};

use crate::http::get;
use crate::support::Setup;

const MANUAL: &str = include_str!("../../../../docs/operations.md");

#[test]
fn the_manual_lists_every_reason_with_its_number_name_and_end() {
    let documented: Vec<(String, String, String)> = MANUAL
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, number, name, end, _, _] = cells[..] else { return None };
            let is_number = number.parse::<u8>().is_ok();
            is_number.then(|| (number.to_owned(), name.trim_matches('`').to_owned(), end.to_owned()))
        })
        .collect();
    let known = Reason::ALL.iter().map(|reason| {
        let end = match (*reason, reason.end()) {
            (Reason::GONE, _) => "–",
            (_, End::Fin) => "FIN",
            (_, End::Reset) => "reset",
        };
        (reason.number().to_string(), reason.name().to_owned(), end.to_owned())
    });
    assert_eq!(documented, known.collect::<Vec<_>>());
}

#[test]
fn the_manual_names_every_metric_and_no_other() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let text = get(server.address("admin"), "/metrics").body;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    // Of the services' own the manual names the beginning only: their HELP lines explain them.
    let (of_services, documented): (Vec<&str>, Vec<&str>) =
        documented_metrics().partition(|name| name.contains("_…_"));
    let is_of_service =
        |name: &str| of_services.iter().any(|own| name.starts_with(own.split('…').next().unwrap()));
    let exported: BTreeSet<&str> = families.filter(|name| !is_of_service(name)).collect();
    for name in &exported {
        // In full, or as the end of a name with the beginning of the one before.
        let ends = name.match_indices('_').map(|(at, _)| format!("…{}", &name[at..]));
        assert!(ends.chain([(*name).to_owned()]).any(|name| documented.contains(&name.as_str())), "{name}");
    }
    assert_eq!(documented.len(), exported.len(), "{documented:?} for {exported:?}");
}

/// The documents that show configurations.
const WITH_CONFIGURATIONS: [(&str, &str); 6] = [
    ("README.md", include_str!("../../../../README.md")),
    ("api.md", include_str!("../../../../docs/api.md")),
    ("configuration.md", include_str!("../../../../docs/configuration.md")),
    ("files.md", include_str!("../../../../docs/files.md")),
    ("operations.md", MANUAL),
    ("sites.md", include_str!("../../../../docs/sites.md")),
];

#[test]
fn what_the_documents_show_as_a_configuration_is_one() {
    let dir = tempdir().unwrap();
    let mut count = 0;
    for (name, text) in WITH_CONFIGURATIONS {
        // Between two fences is code.
        for code in text.split("\n```").skip(1).step_by(2).filter_map(|code| code.strip_prefix("toml\n")) {
            count += 1;
            std::fs::write(dir.path().join("shown.toml"), code).unwrap();
            let output = crate::support::tidegate_in(dir.path(), ["check", "--config", "shown.toml"]);
            let said = crate::support::stderr(&output);
            let errors = said.lines().filter(|line| line.starts_with("shown.toml:"));
            // Its folders and certificates are somebody else's.
            let wrong: Vec<&str> =
                errors.filter(|line| !line.contains("No such file or directory")).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?} in\n{code}");
            assert_ne!(output.status.code(), Some(101), "{name}: {said}");
        }
    }
    assert!(count >= 5, "{count} configurations");
}

/// The names in the table of the metrics.
fn documented_metrics() -> impl Iterator<Item = &'static str> {
    let (_, table) = MANUAL.split_once("\n## Metrics\n").unwrap();
    let cells =
        table.lines().filter(|line| line.starts_with("| `")).map(|row| row.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}
