//! Processors, niceness and stacks of threads.

use super::*;

#[test]
fn processors_are_lists_as_the_kernel_writes_them() {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let first: u16 = online.split(['-', ',']).next().unwrap().trim().parse().unwrap();
    let given = Given::file(format!("engine.cpu_affinity = [\"{first}\", \"0{first},{first}-{first}\"]\n"));
    let affinity: Vec<String> = given.config().engine.cpu_affinity.iter().map(ToString::to_string).collect();
    assert_eq!(affinity, [first.to_string(), first.to_string()]);
}

#[test]
fn processors_that_are_none() {
    check(
        "engine.cpu_affinity = [\"0-\"]\n",
        "
tidegate.toml:1:23: engine.cpu_affinity: \"0-\": not a list of processors (allowed: an array of processor lists, as [\"0\", \"1-3,5\"])
1 | engine.cpu_affinity = [\"0-\"]
  |                       ^^^^^^",
    );
    check_set(
        "engine.cpu_affinity=[[0]]",
        "--set engine.cpu_affinity=[[0]]: engine.cpu_affinity: an array is not allowed (allowed: an array of processor lists, as [\"0\", \"1-3,5\"])",
    );
    check_set(
        "engine.cpu_affinity=[\"1024\"]",
        "--set engine.cpu_affinity=[\"1024\"]: engine.cpu_affinity: \"1024\": a processor number above 1023 (allowed: an array of processor lists, as [\"0\", \"1-3,5\"])",
    );
    let many = format!("engine.cpu_affinity=[{}]", "\"0\",".repeat(1025));
    let errors = Given::nothing().set(&many).load().unwrap_err();
    assert_eq!(errors.errors()[0].message(), "1025 sets are too many");
}

#[test]
fn processors_that_are_not_there() {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    check_set(
        "engine.cpu_affinity=[\"1023\"]",
        &format!(
            "--set engine.cpu_affinity=[\"1023\"]: engine.cpu_affinity: \"1023\": no processor 1023 on this machine, which has {}",
            online.trim()
        ),
    );
}

#[test]
fn niceness_is_that_of_the_kernel() {
    assert_eq!(Given::nothing().set("engine.nice=-20").config().engine.nice, -20);
    check_set(
        "engine.nice=20",
        "--set engine.nice=20: engine.nice: 20 is out of range (allowed: a number from -20 to 19)",
    );
}
