//! Faults are planted in the code under test, and each has to be found.
//!
//! The code under test has no hooks for that. The crates are copied to a workspace of their own, where each fault is
//! written next to the line that it replaces, under a name that is asked for while it runs; so all of them are built
//! at once. Invariant: a fault whose place is not found any more is an error, not a fault that is passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::mutants::{MUTANTS, Mutant};
use crate::spawning::output;

/// What is built: the code under test, what it stands on, and the simulator.
const CRATES: [&str; 7] = ["buf", "engine", "process", "reactor", "sim", "sys", "timer"];
/// So many seeds a fault has to be found within.
const SEEDS: &str = "400";
/// Added to each crate with faults.
const PLANTED: &str = r#"
/// Whether the fault of this name is to be there.
pub(crate) fn planted(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("TIDEGATE_PLANTED").ok()).as_deref() == Some(name)
}
"#;

#[test]
fn every_planted_fault_is_found() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations");
    let bin = build(&root);
    for scenario in ["loop-inline", "loop-pool", "outgoing", "supervisor"] {
        let ran = run(&bin, scenario, None);
        assert_eq!(ran.status.code(), Some(0), "fails without a fault: {ran:?}");
    }
    let mut missed = Vec::new();
    for mutant in MUTANTS {
        let output = run(&bin, mutant.scenario, Some(mutant.name));
        let told = String::from_utf8_lossy(&output.stdout);
        let first = told.lines().find(|line| line.starts_with("FAILED"));
        println!("{}: {}", mutant.name, first.unwrap_or("not found"));
        if output.status.code() != Some(1) || first.is_none() {
            missed.push((mutant.name, output.status));
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

/// Runs the seeds with a fault. What hangs is ended, and its exit code is another one.
fn run(bin: &Path, scenario: &str, planted: Option<&str>) -> Output {
    let mut command = Command::new("timeout");
    command.arg("60").arg(bin).args(["--whole", "--scenario", scenario, "--seeds", SEEDS]);
    command.env_remove("TIDEGATE_PLANTED");
    if let Some(name) = planted {
        command.env("TIDEGATE_PLANTED", name);
    }
    output(&mut command)
}

/// Copies, plants, builds.
fn build(root: &Path) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.ancestors().nth(2).unwrap();
    let mut files = BTreeMap::new();
    for name in CRATES {
        let name = format!("crates/tidegate-{name}");
        for file in ["Cargo.toml", "src"] {
            collect(workspace, &workspace.join(&name).join(file), &mut files);
        }
    }
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
    // The crate that it names is not among the copies.
    let manifest: Vec<&str> = manifest.lines().filter(|line| !line.starts_with("default-members")).collect();
    files.insert("Cargo.toml".into(), manifest.join("\n"));
    files.insert("Cargo.lock".into(), fs::read_to_string(workspace.join("Cargo.lock")).unwrap());
    files
        .iter_mut()
        .filter(|(name, _)| name.ends_with("/Cargo.toml"))
        .for_each(|(_, text)| *text = untested(text));
    for mutant in MUTANTS {
        plant(mutant, &mut files);
    }
    for name in ["engine", "process", "reactor"] {
        files.get_mut(&format!("crates/tidegate-{name}/src/lib.rs")).unwrap().push_str(PLANTED);
    }
    for (path, text) in &files {
        write(&root.join(path), text);
    }
    let target = root.join("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .args(["build", "--offline", "--quiet", "-p", "tidegate-sim", "--bin", "tidegate-sim"])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "none");
    let output = output(&mut cargo);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/tidegate-sim")
}

/// A manifest without what its tests need, which are not copied.
fn untested(manifest: &str) -> String {
    let of_tests = ["[[test]]", "[[bench]]", "[[example]]", "[dev-dependencies]"];
    let mut is_left_out = false;
    let kept = manifest.split_inclusive('\n').filter(|line| {
        if line.starts_with('[') {
            is_left_out = of_tests.contains(&line.trim_end());
        }
        !is_left_out
    });
    kept.collect()
}

fn plant(mutant: &Mutant, files: &mut BTreeMap<String, String>) {
    let Mutant { name, file, original, mutated, .. } = mutant;
    let text = files.get_mut(*file).unwrap_or_else(|| panic!("{name}: {file} is not there"));
    let places = text.matches(original).count();
    assert_eq!(places, 1, "{name}: {places} places in {file} read: {original}");
    *text = text.replace(original, &mutated.replace("PLANTED", &format!("crate::planted(\"{name}\")")));
}

fn collect(workspace: &Path, path: &Path, files: &mut BTreeMap<String, String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(workspace, &entry.unwrap().path(), files);
        }
    } else {
        let name = path.strip_prefix(workspace).unwrap().to_str().unwrap();
        files.insert(name.to_owned(), fs::read_to_string(path).unwrap());
    }
}

/// What has not changed is left as it is, so that it is not built again.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
