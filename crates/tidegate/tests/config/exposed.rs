//! A folder that is served holds nothing of what the server keeps for itself.

use super::*;

/// A configuration with one more line, in a folder with a key, users, and a folder of pages.
fn given(lines: &str) -> Given {
    let given = Given::file(lines);
    for folder in ["pages", "pages/.hidden", "elsewhere"] {
        std::fs::create_dir(given.dir.path().join(folder)).unwrap();
    }
    let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$8eVTZ5NR3wSsvPlXvHdpOSQcPnUYUjiSJ1Wq8ZdxB3s";
    for users in ["users", "pages/users", "pages/.hidden/users"] {
        std::fs::write(given.dir.path().join(users), format!("ada:{hash}\n")).unwrap();
    }
    given
}

#[test]
fn the_current_folder_is_not_served_with_the_data_in_it() {
    given("web.root = \".\"\n").refused(
        "
tidegate.toml:1:12: web.root: \"DIR\" would be served: data_dir is \"DIR/tidegate-data\"; keep them apart, or in a folder whose name begins with a dot
1 | web.root = \".\"
  |            ^^^",
    );
    // The data may be there already, and the folder may have another name.
    let given = given("web.root = \"link\"\n");
    std::fs::create_dir(given.dir.path().join("tidegate-data")).unwrap();
    std::os::unix::fs::symlink(".", given.dir.path().join("link")).unwrap();
    given.refused(
        "
tidegate.toml:1:12: web.root: \"DIR/link\" would be served: data_dir is \"DIR/tidegate-data\"; keep them apart, or in a folder whose name begins with a dot
1 | web.root = \"link\"
  |            ^^^^^^",
    );
}

#[test]
fn neither_are_accounts_logs_keys_and_users() {
    let sites = "[[web.site]]\nroot = \"pages\"\n";
    let tls = "[[listen]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\nservice = \"web\"\n";
    for (lines, what) in [
        ("data_dir = \"pages\"\n".to_owned() + sites, "data_dir"),
        ("accounts.database = \"sqlite:pages/a.db\"\n".to_owned() + sites, "accounts.database"),
        ("log.dir = \"pages/log\"\n".to_owned() + sites, "log.dir"),
        (format!("{tls}tls = {{ cert = \"c\", key = \"pages/k\" }}\n{sites}"), "listen[0].tls.key"),
        (
            format!(
                "{tls}tls = {{ cert = \"c\", key = \"k\", certificates = [{{ cert = \"c\", key = \"pages/k\" }}] }}\n{sites}"
            ),
            "listen[0].tls.key",
        ),
        (format!("{sites}basic_auth = {{ users = \"pages/users\" }}\n"), "web.site[0].basic_auth.users"),
        (
            format!("{sites}dot_files = true\nbasic_auth = {{ users = \"pages/.hidden/users\" }}\n"),
            "web.site[0].basic_auth.users",
        ),
        (
            "web.root = \"pages\"\ndata_dir = \"pages/.data\"\n[[web.site]]\ndot_files = true\n".to_owned(),
            "data_dir",
        ),
    ] {
        let errors = given(&lines).load().expect_err(&lines);
        let [error] = errors.errors() else { panic!("{lines}: {errors}") };
        let found = error.message();
        assert!(
            found.contains("pages\" would be served: ") && found.contains(&format!(": {what} is ")),
            "{found}"
        );
    }
}

#[test]
fn what_lies_apart_or_is_hidden_or_served_to_nobody_is_fine() {
    for lines in [
        "web.root = \"pages\"\n",
        "web.root = \".\"\ndata_dir = \".tidegate\"\n",
        "web.root = \".\"\ndata_dir = \"elsewhere/../.tidegate/data\"\n",
        "web.root = \".\"\nlisten = [{ name = \"a\", address = \"127.0.0.1:0\", service = \"echo\" }]\n",
        "data_dir = \"page\"\n[[web.site]]\nroot = \"pages\"\n",
        "[[web.site]]\nroot = \"pages\"\nbasic_auth = { users = \"pages/.hidden/users\" }\n",
        "[[web.site]]\nroot = \"pages\"\nbasic_auth = { users = \"users\" }\n",
        // What holds the root is not in it.
        "data_dir = \".\"\nweb.root = \"pages\"\n",
    ] {
        given(lines).config();
    }
}
