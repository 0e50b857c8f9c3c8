//! Concurrency models: which values of `[engine]` go together. The unit tests of the rules know those of later versions too.

use super::*;
use tidegate::config::Dispatch;

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
