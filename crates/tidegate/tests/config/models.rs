//! Concurrency models: which values of `[engine]` go together. The unit tests of the rules know those of later versions too.

use super::*;
use tidegate::config::{Acceptor, Balance, Dispatch};

#[test]
fn a_pool_has_its_threads() {
    let engine = Given::nothing().set("engine.dispatch=pool").set("engine.pool_threads=3").config().engine;
    assert_eq!((engine.dispatch, engine.pool_threads), (Dispatch::Pool, Count::Exactly(3)));
}

#[test]
fn without_a_pool_there_are_no_threads_of_it() {
    check(
        "[engine]\npool_threads = 2\n",
        "
tidegate.toml:2:16: engine.pool_threads: 2 has no effect: engine.dispatch = \"inline\" has no pool
2 | pool_threads = 2
  |                ^",
    );
}

#[test]
fn one_accepts_for_several() {
    for (word, balance) in [
        ("round-robin", Balance::RoundRobin),
        ("least-connections", Balance::LeastConnections),
        ("hash", Balance::Hash),
    ] {
        let given = Given::nothing().set("engine.acceptor=main").set("engine.loops=2");
        let engine = given.set(&format!("engine.balance={word}")).config().engine;
        assert_eq!((engine.acceptor, engine.balance), (Acceptor::Main, balance));
    }
}

#[test]
fn one_that_accepts_needs_others_and_only_one_chooses() {
    check(
        "[engine]\nacceptor = \"main\"\n",
        "
tidegate.toml:2:12: engine.acceptor: \"main\" needs loops to accept for, and engine.loops is 1
2 | acceptor = \"main\"
  |            ^^^^^^",
    );
    check(
        "[engine]\nloops = 2\nbalance = \"hash\"\n",
        "
tidegate.toml:3:11: engine.balance: \"hash\" has no effect: the kernel spreads connections unless engine.acceptor is \"main\" or process.accept is \"handoff\"
3 | balance = \"hash\"
  |           ^^^^^^",
    );
}
