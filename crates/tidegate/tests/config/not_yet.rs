//! What a later version will serve, and this one refuses.

use super::*;

#[test]
fn later_features_are_refused() {
    for (set, key, message, allowed) in [
        (
            "listen.web.service=syslog",
            "listen.web.service",
            "\"syslog\" is not yet supported",
            "\"web\", \"redirect\", \"gateway\", \"admin\", \"echo\", \"discard\", \"daytime\" or \"chargen\"",
        ),
        (
            "accounts.database=postgres://db/x",
            "accounts.database",
            "a postgres:// database is not yet supported",
            "\"sqlite:PATH\", or \"\"",
        ),
    ] {
        check_set(set, &format!("--set {set}: {key}: {message} (allowed: {allowed})"));
    }
}

#[test]
fn the_values_that_are_served_can_be_written_out() {
    let config = Given::file(
        "process = { daemon = false, user = \"\", hang_timeout = \"30000ms\", drain_timeout = \"0ms\" }\n\
         engine = { backend = \"auto\", loops = 1, cpu_affinity = [], nice = 0 }\n",
    );
    assert_eq!(config.config().process.user, None);
}
