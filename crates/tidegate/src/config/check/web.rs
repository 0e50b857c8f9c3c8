//! The rules of `[web]` and `[[web.site]]`.
//!
//! Invariant: what the workers would refuse when they start is an error here, with its place; files are read, and nothing
//! else is done with them.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value as Json;

use super::Finding;
use crate::config::kind::quote;
use crate::config::origin::Origin;
use crate::config::schema::{LISTEN, SITE};
use crate::config::tree::{Row, Setting, Tree};
use crate::config::units::ByteSize;

/// Fields that no site can set, since they say how an answer is sent.
const OWN_FIELDS: [&str; 6] =
    ["connection", "content-length", "content-encoding", "date", "server", "transfer-encoding"];

/// Sites that cannot be served, and limits that contradict each other.
pub(super) fn rules(tree: &Tree) -> Vec<Finding> {
    let mut found: Vec<Finding> = target_size(tree).into_iter().collect();
    for (idx, row) in tree.rows(SITE).iter().enumerate() {
        let mut wrong = |name: &str, setting: &Setting, message: String| {
            found.push(Finding::new(&setting.place, format!("{SITE}[{idx}].{name}"), message));
        };
        if let Some(root) = row.get("root")
            && let Some(why) = root.value.as_str().filter(|path| !path.is_empty()).and_then(no_folder)
        {
            wrong("root", root, why);
        }
        if let Some(setting) = row.get("listeners") {
            for name in texts(setting) {
                if let Some(why) = no_web_listener(tree, name) {
                    wrong("listeners", setting, why);
                }
            }
        }
        if let Some(setting) = row.get("redirects") {
            for (at, redirect) in setting.value.as_array().into_iter().flatten().enumerate() {
                if let Some(why) = no_redirect(redirect) {
                    wrong(&format!("redirects[{at}]"), setting, why);
                }
            }
        }
        if let Some(headers) = row.get("headers")
            && let Some(why) = set_twice(headers, row.get("hsts").is_some(), has_request_ids(tree))
        {
            wrong("headers", headers, why);
        }
        if let Some(setting) = row.get("basic_auth")
            && let Some(why) = setting.value["users"].as_str().and_then(no_users)
        {
            wrong("basic_auth.users", setting, why);
        }
        if let Some(headers) = row.get("headers") {
            for name in headers.value.as_object().into_iter().flat_map(|fields| fields.keys()) {
                if OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                    wrong(
                        "headers",
                        headers,
                        format!("{} is the server's own field; leave it out", quote(name)),
                    );
                }
            }
        }
    }
    found.extend(shared_hosts(tree));
    found
}

fn has_request_ids(tree: &Tree) -> bool {
    tree.text("web.request_id").is_some_and(|mode| mode != "off")
}

/// Why a field would be in an answer twice.
fn set_twice(headers: &Setting, has_hsts: bool, has_ids: bool) -> Option<String> {
    let mut seen: Vec<&str> = Vec::new();
    for name in headers.value.as_object()?.keys() {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if let Some(other) = seen.iter().find(|other| is(other)) {
            return Some(format!("{} and {} are one field; keep one of them", quote(other), quote(name)));
        }
        for (own, key) in [("strict-transport-security", "hsts"), ("x-request-id", "web.request_id")] {
            let on = if key == "hsts" { has_hsts } else { has_ids };
            if on && is(own) {
                return Some(format!("{} is what `{key}` sets; keep one of them", quote(name)));
            }
        }
        seen.push(name);
    }
    None
}

fn texts(setting: &Setting) -> impl Iterator<Item = &str> {
    setting.value.as_array().into_iter().flatten().filter_map(Json::as_str)
}

/// Why a path is no folder that can be served.
pub(super) fn no_folder(path: &str) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(format!("{} is not a folder", quote(path))),
        Err(error) => Some(format!("{}: {error}", quote(path))),
    }
}

fn no_web_listener(tree: &Tree, name: &str) -> Option<String> {
    let listener = tree.rows(LISTEN).iter().find(|row| row.text("name") == Some(name));
    match listener.map(|row| row.text("service")) {
        None => Some(format!("no listener is named {}", quote(name))),
        Some(Some(service)) if service != "web" => {
            Some(format!("the listener {} has the service {}, not \"web\"", quote(name), quote(service)))
        }
        Some(_) => None,
    }
}

/// Sites that share a name on a listener: nobody could say which of them is meant.
fn shared_hosts(tree: &Tree) -> Vec<Finding> {
    let mut owners: HashMap<(&str, &str), usize> = HashMap::new();
    let mut found = Vec::new();
    let listeners: Vec<&str> = tree.rows(LISTEN).iter().filter_map(|row| row.text("name")).collect();
    for (idx, row) in tree.rows(SITE).iter().enumerate() {
        let Some(hosts) = row.get("hosts") else { continue };
        let all: Vec<&str> = texts(hosts).collect();
        let all = if all.is_empty() { vec!["*"] } else { all };
        for host in all {
            let clash = named_listeners(row, &listeners)
                .into_iter()
                .find_map(|listener| owners.insert((listener, host), idx).map(|owner| (listener, owner)));
            if let Some((listener, owner)) = clash {
                let whose = if owner == idx {
                    "here twice".to_owned()
                } else {
                    format!("a host of {SITE}[{owner}] already")
                };
                let message = format!("{} is {whose}, on the listener {}", quote(host), quote(listener));
                let place = if hosts.place.origin == Origin::Default { &row.place } else { &hosts.place };
                found.push(Finding::new(place, format!("{SITE}[{idx}].hosts"), message));
            }
        }
    }
    found
}

/// The listeners that have a site.
fn named_listeners<'a>(row: &'a Row, all: &[&'a str]) -> Vec<&'a str> {
    let named: Vec<&str> = row.get("listeners").into_iter().flat_map(texts).collect();
    if named.is_empty() { all.to_vec() } else { named }
}

/// A target is a part of its head.
fn target_size(tree: &Tree) -> Option<Finding> {
    let size = |path: &str| tree.text(path).and_then(|text| text.parse::<ByteSize>().ok());
    let (target, head) = (size("web.max_target_bytes")?, size("web.max_head_bytes")?);
    let setting = tree.get("web.max_target_bytes").filter(|_| target > head)?;
    let message = format!("\"{target}\" is more than web.max_head_bytes, which is \"{head}\"");
    Some(Finding::new(&setting.place, "web.max_target_bytes", message))
}

#[cfg(feature = "web")]
fn no_redirect(redirect: &Json) -> Option<String> {
    let text = |name: &str| redirect[name].as_str().unwrap_or_default().to_owned();
    let code = redirect["status"].as_u64().and_then(|code| u16::try_from(code).ok());
    let status = code.and_then(tidegate_web::Status::from_code)?;
    let redirect = tidegate_web::SiteRedirect { from: text("from"), to: text("to"), status };
    redirect.check().err().map(|error| error.to_string())
}

#[cfg(feature = "web")]
fn no_users(path: &str) -> Option<String> {
    match tidegate_web::Users::read(Path::new(path)) {
        Ok(users) if users.is_empty() => Some(format!("{} has no users", quote(path))),
        Ok(_) => None,
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            Some(format!("{error}{}", source.unwrap_or_default()))
        }
    }
}

/// A program without the service `web` has no sites.
#[cfg(not(feature = "web"))]
const fn no_redirect(_: &Json) -> Option<String> {
    None
}

#[cfg(not(feature = "web"))]
fn no_users(path: &str) -> Option<String> {
    std::fs::metadata(Path::new(path)).err().map(|error| format!("{}: {error}", quote(path)))
}
