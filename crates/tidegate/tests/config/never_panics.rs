//! Input never panics.

use super::*;

fn any_toml() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "[a-z_]{0,8}",
        Just("process".to_owned()),
        Just("workers".to_owned()),
        Just("listen".to_owned()),
        Just("web".to_owned()),
        Just("respond".to_owned()),
        Just("address".to_owned()),
        Just("log.level".to_owned()),
    ];
    let value = prop_oneof![
        "[0-9]{1,25}",
        "\"[^\"\\\\]{0,20}\"",
        "\"[0-9]{1,25}(ns|ms|s|d|B|KiB|TiB|w)?\"",
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("[[1, -1]]".to_owned()),
        Just("{ a = 1 }".to_owned()),
        Just("[{ name = \"a\", address = \"unix:x\" }]".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("1.5".to_owned()),
        ".{0,8}",
    ];
    let line = prop_oneof![
        (key.clone(), value).prop_map(|(key, value)| format!("{key} = {value}\n")),
        key.clone().prop_map(|key| format!("[{key}]\n")),
        (key.clone(), key).prop_map(|(section, key)| format!("[[{section}.{key}]]\n")),
        Just("[[listen]]\n".to_owned()),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

/// Loads, and uses what comes out: neither may panic.
fn survives(given: &Given) -> Result<(), TestCaseError> {
    match given.load() {
        Ok(config) => {
            prop_assert_eq!(&Config::from_json(&config.to_json().unwrap()).unwrap(), &config);
            prop_assert!(config.to_toml().is_ok());
        }
        Err(errors) => {
            prop_assert!(!errors.errors().is_empty());
            prop_assert!(!errors.to_string().is_empty() && errors.to_json().is_array());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&Given::file(bytes))?;
    }

    #[test]
    fn any_text_is_survived(text in any_toml()) {
        survives(&Given::file(text))?;
    }

    #[test]
    fn any_setting_is_survived(key in "[a-z._]{0,12}|listen.web.[a-z]{4,8}|log.level|process.workers", value in ".{0,20}") {
        survives(&Given::nothing().set(&format!("{key}={value}")).env("TIDEGATE_LISTEN", &value.replace('\0', "")))?;
    }

    #[test]
    fn any_number_is_read_or_refused(number in any::<i64>()) {
        let loaded = Given::nothing().set(&format!("process.workers={number}")).load();
        prop_assert_eq!(loaded.is_ok(), (0..=256).contains(&number));
    }
}
