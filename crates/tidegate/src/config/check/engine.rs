//! The rules of `[engine]`: which concurrency models go together, and which processors there are.
//!
//! Invariant: what would have no effect, or another one than it says, is an error with the reason. A value that is the
//! default may be written out, so that what `tidegate config` prints can be loaded.

use serde_json::Value as Json;

use super::Finding;
use crate::config::cpus::CpuSet;
use crate::config::kind::quote;
use crate::config::origin::Origin;
use crate::config::tree::{Setting, Tree};

/// Fills in what one value makes of another that nobody has said: threads that share a poller need one-shot registration,
/// or two of them would meet on one connection.
pub(super) fn resolve(tree: &mut Tree) {
    if shared_poller(tree).is_none() {
        return;
    }
    let unsaid = tree.get(TRIGGER).filter(|trigger| !is_said(trigger)).cloned();
    if let Some(trigger) = unsaid {
        tree.set(TRIGGER, Some(Setting { value: Json::from("oneshot"), ..trigger }));
    }
}

/// Values that cannot be served together.
pub(super) fn combinations(tree: &Tree) -> Vec<Finding> {
    let mut found = match shared_poller(tree) {
        Some(dispatch) => with_shared_poller(tree, dispatch),
        None => main_acceptor(tree).into_iter().collect(),
    };
    found.extend(handed_over(tree));
    found.extend(unused_balance(tree));
    found.extend(unused_pool(tree));
    found
}

/// What `reactor` and `leader-follower` rule out: their driver is one epoll instance and the threads around it.
fn with_shared_poller(tree: &Tree, dispatch: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(backend) = tree.get(BACKEND).filter(|backend| backend.value == "uring") {
        let why =
            "hands the readiness of connections from thread to thread, and io_uring has completions alone";
        found.push(Finding::new(
            &backend.place,
            BACKEND,
            format!("\"uring\" cannot be served: {DISPATCH} = {dispatch} {why}"),
        ));
    }
    if let Some(trigger) = tree.get(TRIGGER).filter(|trigger| is_said(trigger) && trigger.value != "oneshot")
    {
        let why =
            "has several threads at one poller, and only \"oneshot\" keeps two of them off one connection";
        let message = format!("{} cannot be served: {DISPATCH} = {dispatch} {why}", trigger.value);
        found.push(Finding::new(&trigger.place, TRIGGER, message));
    }
    if let Some(loops) = tree.get(LOOPS).filter(|loops| loops.value != 1) {
        let why = "has one poller for all of its threads; their number is engine.pool_threads";
        let message = format!("{} cannot be served: {DISPATCH} = {dispatch} {why}", loops.value);
        found.push(Finding::new(&loops.place, LOOPS, message));
    }
    if let Some(acceptor) = tree.get(ACCEPTOR).filter(|acceptor| acceptor.value == "main") {
        let why = "has one poller, which accepts for all of its threads already";
        let message = format!("\"main\" cannot be served: {DISPATCH} = {dispatch} {why}");
        found.push(Finding::new(&acceptor.place, ACCEPTOR, message));
    }
    found
}

/// A main loop needs others to accept for.
fn main_acceptor(tree: &Tree) -> Option<Finding> {
    let acceptor = tree.get(ACCEPTOR).filter(|acceptor| acceptor.value == "main")?;
    tree.get(LOOPS).filter(|loops| loops.value == 1)?;
    let message = format!("\"main\" needs loops to accept for, and {LOOPS} is 1");
    Some(Finding::new(&acceptor.place, ACCEPTOR, message))
}

/// Connections that another process accepts have nobody to be accepted by in a worker.
fn handed_over(tree: &Tree) -> Option<Finding> {
    let accept = tree.get(ACCEPT).filter(|accept| accept.value == "handoff")?;
    if tree.get(WORKERS).is_some_and(|workers| workers.value == 0) {
        let message = format!("\"handoff\" needs workers to hand over to, and {WORKERS} is 0");
        return Some(Finding::new(&accept.place, ACCEPT, message));
    }
    let acceptor = tree.get(ACCEPTOR).filter(|acceptor| acceptor.value == "main")?;
    let message = format!("\"main\" has nothing to accept: {ACCEPT} = \"handoff\" has a process that does");
    Some(Finding::new(&acceptor.place, ACCEPTOR, message))
}

/// Nobody chooses where the kernel does.
fn unused_balance(tree: &Tree) -> Option<Finding> {
    let balance = tree.get(BALANCE).filter(|balance| balance.value != "round-robin")?;
    let (acceptor, accept) = (tree.text(ACCEPTOR)?, tree.text(ACCEPT)?);
    if acceptor == "main" || accept == "handoff" {
        return None;
    }
    let message = format!(
        "{} has no effect: the kernel spreads connections unless {ACCEPTOR} is \"main\" or process.accept is \"handoff\"",
        balance.value
    );
    Some(Finding::new(&balance.place, BALANCE, message))
}

/// Without a pool there are no threads of it.
fn unused_pool(tree: &Tree) -> Option<Finding> {
    let threads = tree.get(POOL_THREADS).filter(|threads| threads.value != "auto")?;
    (tree.text(DISPATCH)? == "inline").then(|| {
        let message = format!("{} has no effect: {DISPATCH} = \"inline\" has no pool", threads.value);
        Finding::new(&threads.place, POOL_THREADS, message)
    })
}

/// Processors that this machine does not have.
pub(super) fn processors(tree: &Tree) -> Vec<Finding> {
    // Where /sys is not mounted the start finds out, when the kernel refuses.
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
    let Some(online) = online.ok().and_then(|text| text.trim().parse().ok()) else { return Vec::new() };
    processors_of(tree, &online)
}

fn processors_of(tree: &Tree, online: &CpuSet) -> Vec<Finding> {
    let Some(setting) = tree.get(CPU_AFFINITY) else { return Vec::new() };
    let texts = setting.value.as_array().into_iter().flatten().filter_map(Json::as_str);
    let missing = texts.filter_map(|text| {
        let set: CpuSet = text.parse().ok()?;
        let lacking = set.cpus().iter().copied().filter(|cpu| !online.cpus().contains(cpu));
        let lacking = CpuSet::new(lacking)?;
        let noun = if lacking.cpus().len() == 1 { "processor" } else { "processors" };
        let message = format!("{}: no {noun} {lacking} on this machine, which has {online}", quote(text));
        Some(Finding::new(&setting.place, CPU_AFFINITY, message))
    });
    missing.collect()
}

/// The dispatch as it is shown, when it is one whose threads share a poller.
fn shared_poller(tree: &Tree) -> Option<&'static str> {
    match tree.text(DISPATCH)? {
        "reactor" => Some("\"reactor\""),
        "leader-follower" => Some("\"leader-follower\""),
        _ => None,
    }
}

fn is_said(setting: &Setting) -> bool {
    setting.place.origin != Origin::Default
}

const ACCEPT: &str = "process.accept";
const ACCEPTOR: &str = "engine.acceptor";
const BACKEND: &str = "engine.backend";
const BALANCE: &str = "engine.balance";
const CPU_AFFINITY: &str = "engine.cpu_affinity";
const DISPATCH: &str = "engine.dispatch";
const LOOPS: &str = "engine.loops";
const POOL_THREADS: &str = "engine.pool_threads";
const TRIGGER: &str = "engine.trigger";
const WORKERS: &str = "process.workers";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::origin::Place;
    use crate::config::schema::{Default as DefaultValue, KEYS};
    use toml::de::DeValue;

    /// The defaults, and on top of them what somebody said, whether this version serves it or not.
    fn tree(said: &[(&'static str, Json)]) -> Tree {
        let mut tree = Tree::default();
        for key in KEYS {
            if let DefaultValue::Value(text) = key.default {
                let context = crate::config::kind::Context { current_dir: None, services: Vec::new() };
                let value = key.kind.read(DeValue::parse(text).unwrap().get_ref(), &context);
                let place = Place { origin: Origin::Default, excerpt: None };
                tree.set(key.path, Some(Setting { value: value.ok().unwrap(), place }));
            }
        }
        for (path, value) in said {
            let place = Place { origin: Origin::Set { text: (*path).to_owned() }, excerpt: None };
            tree.set(path, Some(Setting { value: value.clone(), place }));
        }
        resolve(&mut tree);
        tree
    }

    #[track_caller]
    fn check(said: &[(&'static str, Json)], expect: &[(&str, &str)]) {
        let found = combinations(&tree(said));
        let found: Vec<(&str, String)> =
            found.iter().map(|finding| (finding.key.as_str(), finding.problem.message.clone())).collect();
        let found: Vec<(&str, &str)> = found.iter().map(|(key, message)| (*key, message.as_str())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn models_that_go_together() {
        check(&[], &[]);
        for dispatch in ["pool", "reactor", "leader-follower"] {
            check(&[(DISPATCH, dispatch.into())], &[]);
            check(&[(DISPATCH, dispatch.into()), (POOL_THREADS, 4.into())], &[]);
            check(
                &[(DISPATCH, dispatch.into()), (TRIGGER, "oneshot".into()), (BACKEND, "epoll".into())],
                &[],
            );
        }
        check(&[(ACCEPTOR, "main".into()), (LOOPS, 2.into()), (BALANCE, "hash".into())], &[]);
        check(&[("process.accept", "handoff".into()), (BALANCE, "hash".into())], &[]);
        check(&[(DISPATCH, "pool".into()), (BACKEND, "uring".into()), (TRIGGER, "level".into())], &[]);
        // The default written out, as `tidegate config` does.
        check(
            &[(BALANCE, "round-robin".into()), (POOL_THREADS, "auto".into()), (TRIGGER, "edge".into())],
            &[],
        );
    }

    #[test]
    fn a_shared_poller_takes_oneshot_when_nobody_says_otherwise() {
        let trigger = |said: &[(&'static str, Json)]| tree(said).text(TRIGGER).unwrap().to_owned();
        assert_eq!(trigger(&[(DISPATCH, "reactor".into())]), "oneshot");
        assert_eq!(trigger(&[(DISPATCH, "leader-follower".into())]), "oneshot");
        assert_eq!(trigger(&[(DISPATCH, "pool".into())]), "edge");
        assert_eq!(trigger(&[(DISPATCH, "reactor".into()), (TRIGGER, "level".into())]), "level");
    }

    #[test]
    fn what_a_shared_poller_rules_out() {
        check(
            &[
                (DISPATCH, "reactor".into()),
                (BACKEND, "uring".into()),
                (TRIGGER, "edge".into()),
                (LOOPS, 2.into()),
                (ACCEPTOR, "main".into()),
            ],
            &[
                (
                    BACKEND,
                    "\"uring\" cannot be served: engine.dispatch = \"reactor\" hands the readiness of connections from thread to thread, and io_uring has completions alone",
                ),
                (
                    TRIGGER,
                    "\"edge\" cannot be served: engine.dispatch = \"reactor\" has several threads at one poller, and only \"oneshot\" keeps two of them off one connection",
                ),
                (
                    LOOPS,
                    "2 cannot be served: engine.dispatch = \"reactor\" has one poller for all of its threads; their number is engine.pool_threads",
                ),
                (
                    ACCEPTOR,
                    "\"main\" cannot be served: engine.dispatch = \"reactor\" has one poller, which accepts for all of its threads already",
                ),
            ],
        );
        check(
            &[(DISPATCH, "leader-follower".into()), (TRIGGER, "level".into())],
            &[(
                TRIGGER,
                "\"level\" cannot be served: engine.dispatch = \"leader-follower\" has several threads at one poller, and only \"oneshot\" keeps two of them off one connection",
            )],
        );
    }

    #[test]
    fn what_would_have_no_effect() {
        check(
            &[(ACCEPTOR, "main".into())],
            &[(ACCEPTOR, "\"main\" needs loops to accept for, and engine.loops is 1")],
        );
        check(
            &[(BALANCE, "hash".into()), (LOOPS, 4.into())],
            &[(
                BALANCE,
                "\"hash\" has no effect: the kernel spreads connections unless engine.acceptor is \"main\" or process.accept is \"handoff\"",
            )],
        );
        check(
            &[(POOL_THREADS, 8.into())],
            &[(POOL_THREADS, "8 has no effect: engine.dispatch = \"inline\" has no pool")],
        );
    }

    #[test]
    fn a_refused_value_is_one_error() {
        let mut tree = tree(&[(ACCEPTOR, "main".into()), (BALANCE, "hash".into())]);
        for path in [LOOPS, "process.accept"] {
            tree.set(path, None);
        }
        assert!(combinations(&tree).is_empty());
    }

    #[test]
    fn processors_that_are_not_there_are_named() {
        let tree = tree(&[(CPU_AFFINITY, serde_json::json!(["0", "1-5", "0,3", "9"]))]);
        let messages: Vec<_> =
            processors_of(&tree, &"0-3".parse().unwrap()).iter().map(|f| f.problem.message.clone()).collect();
        assert_eq!(
            messages,
            [
                "\"1-5\": no processors 4-5 on this machine, which has 0-3",
                "\"9\": no processor 9 on this machine, which has 0-3"
            ]
        );
    }
}
