//! A configuration that another version of the program has written, as an upgrade takes it over.
//!
//! Invariant: what that version said stays as it was; what it did not know yet is as it is by default. What is in rows (listeners,
//! sites) has no default here: a field that is added there says by `serde(default)` how it was before there was such a field.

use serde_json::Value as Json;

use super::Config;

impl Config {
    /// What [`to_json`](Self::to_json) of this version or an earlier one wrote.
    pub(crate) fn of_earlier(written: Json) -> Result<Self, serde_json::Error> {
        // Of the same version nothing is missing, also where the default has a value and this one has none.
        serde_json::from_value(written.clone()).or_else(|_| {
            let mut whole = serde_json::to_value(Self::default())?;
            lay_over(&mut whole, written);
            serde_json::from_value(whole)
        })
    }
}

fn lay_over(under: &mut Json, over: Json) {
    match (under, over) {
        (Json::Object(under), Json::Object(over)) => {
            for (name, value) in over {
                lay_over(under.entry(name).or_insert(Json::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(config: &Config) -> Json {
        serde_json::to_value(config).unwrap()
    }

    #[test]
    fn keys_that_were_not_there_yet_are_as_by_default() {
        let mut config = Config::default();
        config.process.workers = crate::config::Count::Exactly(7);
        config.web.max_connections_per_address = 9;
        let whole = written(&config);
        let mut tried = 0;
        for section in ["process", "engine", "web", "gateway", "accounts", "log"] {
            for key in whole[section].as_object().unwrap().keys() {
                let mut earlier = whole.clone();
                earlier[section].as_object_mut().unwrap().remove(key);
                let read =
                    Config::of_earlier(earlier).unwrap_or_else(|error| panic!("{section}.{key}: {error}"));
                let said = ["workers", "max_connections_per_address"].contains(&key.as_str());
                assert_eq!(read == config, !said, "{section}.{key}");
                tried += 1;
            }
        }
        assert!(tried > 50, "{tried}");
        assert_eq!(Config::of_earlier(whole).unwrap(), config);
        assert!(Config::of_earlier(Json::from(7)).is_err());
    }

    #[test]
    #[cfg(feature = "full")]
    fn a_site_of_a_version_that_did_not_limit_passwords_has_no_limit() {
        let auth = serde_json::json!({ "realm": "a", "users": "/b" });
        let auth: crate::config::BasicAuth = serde_json::from_value(auth).unwrap();
        assert_eq!(auth.max_failures, 0);
    }
}
