//! A root that has devices in it: what is no file is refused, whoever asks for it in whatever way, and never opened.

use std::fs;
use std::path::Path;

use rustix::fs::inotify;
use tempfile::tempdir;

use crate::http::{Connection, get};
use crate::processes::Exit;
use crate::support::{Server, Setup, write_file};

/// Those that nearly every machine has, and nothing else opens while the tests run.
const DEVICES: [&str; 2] = ["full", "zero"];

#[test]
fn a_device_is_not_opened_whatever_leads_to_it() {
    let dir = tempdir().unwrap();
    if !DEVICES.iter().all(|name| Path::new("/dev").join(name).exists()) {
        eprintln!("skipped: there are no devices");
        return;
    }
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    for name in DEVICES {
        inotify::add_watch(&watch, format!("/dev/{name}"), inotify::WatchFlags::OPEN).unwrap();
    }
    // A folder with a link to one, too; and what would stand in for a file that is there.
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("page.txt"), "page").unwrap();
    for (link, name) in [("page.txt.gz", "zero"), ("link", "full"), ("index.html", "zero")] {
        std::os::unix::fs::symlink(format!("/dev/{name}"), root.join(link)).unwrap();
    }
    for web in [
        "root = \"/dev\"",
        "root = \"/dev\"\nautoindex = true\ndot_files = true\nprecompressed = true",
        "root = \"/dev\"\nindex = [\"zero\", \"full\"]",
        "root = \"/dev\"\ntry_files = [\"$uri\", \"/full\", \"/zero\"]",
        "root = \"root\"\nprecompressed = true",
    ] {
        let server = start(&dir, web);
        let address = server.address("web");
        for path in
            ["/full", "/zero", "/null", "/tty", "/random", "/missing", "/full/", "/link", "/index.html"]
        {
            assert_eq!(get(address, path).status, 404, "{path} with {web}");
        }
        if web.contains("\"root\"") {
            let mut client = Connection::open(address);
            client.send("GET /page.txt HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n");
            assert_eq!(client.answer().unwrap().body, "page");
        }
        let listed = get(address, "/");
        assert_eq!(listed.status, if web.contains("autoindex") { 200 } else { 404 }, "{web}");
        assert!(
            DEVICES.iter().all(|name| !listed.body.contains(&format!("\"./{name}\""))),
            "{}",
            listed.body
        );
    }
    // A page for errors is read at the start, and there is none.
    write_file(dir.path(), &config("root = \"/dev\"\nerror_pages = { 404 = \"/zero\" }"));
    let mut server = Setup::file(&dir).spawn();
    server.wait_line("error page \"/zero\" for 404");
    assert_eq!(server.wait_exit(), Exit::Code(1));

    let mut events = [0; 4096];
    let nothing = rustix::io::read(&watch, &mut events);
    assert_eq!(nothing.unwrap_err(), rustix::io::Errno::AGAIN, "a device was opened");
    // The watch does see one.
    drop(fs::File::open("/dev/full").unwrap());
    assert!(rustix::io::read(&watch, &mut events).unwrap() > 0);
}

fn config(web: &str) -> String {
    format!(
        "process = {{ workers = 1 }}\nlisten = [{{ name = \"web\", address = \"127.0.0.1:0\", service = \"web\" }}]\n\
         [web]\n{web}\n"
    )
}

fn start(dir: &tempfile::TempDir, web: &str) -> Server {
    write_file(dir.path(), &config(web));
    Setup::file(dir).start()
}
