//! `[web]`: which files there are, and how they are sent.

use std::fs;
use std::path::Path;

use rustix::fs::inotify;

use super::{Case, LISTEN, World, ask, case, check, descriptors};
use crate::http::Connection;

pub(super) const CASES: &[Case] = &[
    case("web.root", "one", "two", |world| body(world, "/which.txt")),
    case("web.index", "index", "home", |world| body(world, "/")),
    case("web.try_files", "404", "200", |world| status(world, "/home")),
    case("web.autoindex", "404", "200", |world| status(world, "/list/")),
    case("web.cache_control", "none", "max-age=7", |world| field(world, "/which.txt", "", "Cache-Control")),
    // The second value of the same key: a glob that does not match changes nothing.
    case("web.cache_control.files", "none", "none", |world| field(world, "/big.css", "", "Cache-Control")),
    case("web.cache_control.value", "none", "no-cache", |world| {
        field(world, "/home.html", "", "Cache-Control")
    }),
    case("web.error_pages", "false", "true", |world| (body(world, "/missing") == "sorry").to_string()),
    case("web.compress", "gzip", "none", |world| field(world, "/big.css", GZIP, "Content-Encoding")),
    case("web.precompressed", "false", "true", |world| {
        (ask(world.web(), "test", "/small.txt", GZIP).body() == "as it is").to_string()
    }),
    case("web.dot_files", "404", "200", |world| status(world, "/.hidden")),
    case("web.max_ranges", "206", "200", |world| {
        ask(world.web(), "test", "/big.css", "Range: bytes=0-1\r\n").status()
    }),
    case("web.max_cached_files", "three", "not all", |world| {
        for name in ["/a.bin", "/b.bin", "/c.bin"] {
            assert_eq!(status(world, name), "200");
        }
        let open = descriptors(world).iter().filter(|name| name.ends_with(".bin")).count();
        if open == 3 { "three" } else { "not all" }.to_owned()
    }),
    case("web.max_cached_bytes", "once", "for each request", reads),
];

const GZIP: &str = "Accept-Encoding: gzip\r\n";

#[test]
fn files_are_what_the_keys_say() {
    let before = format!(
        "{LISTEN}[web]\nroot = \"one\"\nindex = [\"index.html\"]\nautoindex = false\nmax_cached_files = 100\n\
         max_ranges = 16\nmax_cached_bytes = \"1MiB\"\n"
    );
    let after = format!(
        "{LISTEN}[web]\nroot = \"two\"\nindex = [\"home.html\"]\ntry_files = [\"$uri\", \"$uri/\", \"$uri.html\"]\n\
         autoindex = true\ncache_control = [{{ files = \"*.txt\", value = \"max-age=7\" }}, \
         {{ files = \"/home.*\", value = \"no-cache\" }}]\n\
         error_pages = {{ 404 = \"/sorry.html\" }}\ncompress = false\nprecompressed = true\ndot_files = true\n\
         max_ranges = 0\nmax_cached_files = 1\nmax_cached_bytes = 0\n"
    );
    check(
        |dir| {
            folder(&dir.join("one"), "one");
            folder(&dir.join("two"), "two");
        },
        &before,
        &after,
        CASES,
    );
}

pub(super) fn folder(dir: &Path, name: &str) {
    fs::create_dir_all(dir.join("list")).unwrap();
    let css = "p { color: black }\n".repeat(100);
    let large = "x".repeat(200 << 10);
    for (file, content) in [
        ("which.txt", name),
        ("index.html", "index"),
        ("home.html", "home"),
        ("list/item", "item"),
        ("sorry.html", "sorry"),
        ("big.css", &css),
        ("small.txt", "small"),
        ("small.txt.gz", "as it is"),
        (".hidden", "hidden"),
        ("a.bin", &large),
        ("b.bin", &large),
        ("c.bin", &large),
    ] {
        fs::write(dir.join(file), content).unwrap();
    }
}

fn status(world: &World, target: &str) -> String {
    ask(world.web(), "test", target, "").status()
}

fn body(world: &World, target: &str) -> String {
    ask(world.web(), "test", target, "").body()
}

fn field(world: &World, target: &str, lines: &str, name: &str) -> String {
    ask(world.web(), "test", target, lines).field(name)
}

/// Whether a small file is opened for each request, and not only when a second has gone by.
fn reads(world: &World) -> String {
    let folder = if world.is_after { "two" } else { "one" };
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, world.path(folder).join("sorry.html"), inotify::WatchFlags::OPEN).unwrap();
    let mut client = Connection::open(world.web());
    let mut is_read = || {
        assert_eq!(client.get("/sorry.html").body, "sorry");
        rustix::io::read(&watch, &mut [0; 4096]).is_ok()
    };
    let count = (0..50).filter(|_| is_read()).count();
    if count == 50 { "for each request" } else { "once" }.to_owned()
}
