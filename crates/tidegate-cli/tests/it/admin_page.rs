//! The admin page, as a browser shows it, and as it is sent.

use std::collections::HashMap;

use rustix::process::Signal;
use serde_json::json;
use tempfile::tempdir;

use crate::browser::{Browser, Scheme, Screen};
use crate::http::{Connection, get};
use crate::processes::Watched;
use crate::support::{Server, Setup, wait_until};

fn page_of(server: &Server) -> String {
    format!("http://{}/", server.address("admin"))
}

/// A number that stands in the page behind what selects it.
const REQUESTS_OF_WEB: &str = "+[...document.querySelectorAll('#listeners tbody tr')].find(row => row.cells[0].textContent === 'web').cells[5].textContent";

const HAS_BARS: &str = "document.querySelectorAll('#histogram .fill[height]:not([height=\"0\"])').length > 0";

#[test]
fn the_page_is_whole_without_a_script_and_lets_no_other_one_in() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let admin = server.address("admin");
    let page = get(admin, "/");
    assert_eq!(page.status, 200);
    let policy = page.head.lines().find(|line| line.starts_with("Content-Security-Policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for part in ["<noscript><meta http-equiv=\"refresh\"", "worker 0", "worker 1", "log server", "None yet."]
    {
        assert!(page.body.contains(part), "{part}");
    }
    assert!(!page.body.contains(" style=") && !page.body.contains(" onclick="), "the policy forbids both");
    let types = HashMap::from([
        ("/admin/page.css", "text/css"),
        ("/admin/page.js", "text/javascript"),
        ("/admin/icon.svg", "image/svg+xml"),
    ]);
    for (path, content_type) in types {
        let answer = get(admin, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("Content-Type: {content_type}")), "{path}: {}", answer.head);
        assert!(page.body.contains(&format!("\"{path}\"")), "{path} is not asked for");
    }
}

#[test]
fn a_page_of_others_whose_name_leads_here_reads_nothing() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let admin = server.address("admin");
    let ask = |host: &str, path: &str| {
        let mut connection = Connection::open(admin);
        connection.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        connection.answer().unwrap().status
    };
    for (path, status) in
        [("/", 421), ("/status", 421), ("/metrics", 421), ("/healthz", 200), ("/readyz", 200)]
    {
        assert_eq!(ask("evil.example:80", path), status, "{path}");
        assert_eq!(ask("localhost", path), 200, "{path}");
        assert_eq!(ask(&admin.to_string(), path), 200, "{path}");
    }
}

#[test]
fn the_page_shows_what_happens_without_being_loaded_again() {
    let Some(browser) = Browser::open(Screen::Desktop, Scheme::Light) else { return };
    let dir = tempdir().unwrap();
    // A text that would be an element, were it not escaped. It has no blanks: they part the listeners of the first line.
    let socket = dir.path().join("<img\tsrc=x\tonerror=document.title='broken'>");
    let server = Setup::new(&dir).set(format!("listen.gateway.address=unix:{}", socket.display())).start();
    browser.go(&page_of(&server));
    browser.value("window.kept = true");
    assert_eq!(browser.text("document.querySelector('.summary .badge').textContent"), "ready");
    assert_eq!(browser.value("document.querySelectorAll('#processes tbody tr').length"), 4);
    assert!(browser.text("document.querySelector('#listeners').textContent").contains("<img\tsrc=x"));
    assert!(browser.is("!document.querySelector('main img')"));

    (0..20).for_each(|_| assert_eq!(get(server.address("web"), "/hello").status, 200));
    browser.wait_for("the requests are shown", &format!("{REQUESTS_OF_WEB} === 20"));
    browser.wait_for(
        "their latency is shown",
        "document.querySelector('#latency .value').textContent.includes('s p99')",
    );
    browser.wait_for("the histogram has bars", HAS_BARS);
    browser.wait_for(
        "a line is drawn",
        "document.querySelector('#requests .line').getAttribute('d').includes('L')",
    );
    browser.wait_for("the ends are shown", "document.querySelector('#closes').textContent.includes('done')");
    assert_eq!(browser.text("document.title"), "Tidegate");

    let killed = server.worker(0);
    Watched::of(&killed).signal(Signal::KILL);
    let died = "document.querySelector('#records').textContent.includes('died with signal 9')";
    browser.wait_for("the death of a worker is among the last warnings", died);
    browser.wait_for("it was started again", "document.querySelector('#processes .alarm')");
    let before =
        browser.value("document.querySelector('#requests .line').getAttribute('d').split('L').length");
    assert_eq!(server.upgrade(), 2);
    browser.wait_for(
        "the next generation",
        "document.querySelector('.summary').textContent.includes('generation 2')",
    );
    assert!(browser.is(died), "what was before the upgrade is still known");
    let points = "document.querySelector('#requests .line').getAttribute('d').split('L').length";
    assert!(browser.value(points).as_u64() >= before.as_u64(), "the last minutes are still known");
    assert_eq!(browser.value("window.kept"), true, "the page was not loaded again");
    let complaints: Vec<String> =
        browser.complaints().into_iter().filter(|text| !text.contains("net::ERR_")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.picture("admin-desktop-light");
}

#[test]
fn a_page_whose_server_has_gone_says_so_and_one_that_is_paused_stays() {
    let Some(browser) = Browser::open(Screen::Desktop, Scheme::Dark) else { return };
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    browser.go(&page_of(&server));
    browser.click("#pause");
    assert_eq!(browser.text("document.querySelector('#live').textContent"), "paused");
    let taken = browser.text("document.querySelector('#taken').textContent");
    (0..3).for_each(|_| assert_eq!(get(server.address("web"), "/hello").status, 200));
    let paused_at = server.status().unix_time;
    wait_until("it would have been fetched anew", || server.status().unix_time > paused_at + 3);
    assert_eq!(browser.text("document.querySelector('#taken').textContent"), taken);
    browser.click("#pause");
    browser.wait_for("it goes on", &format!("{REQUESTS_OF_WEB} === 3"));
    server.end(Signal::TERM);
    browser.wait_for("the server has gone", "document.querySelector('#live.lost')");
    assert!(
        browser.is("document.querySelectorAll('#processes tbody tr').length === 4"),
        "what was known stays"
    );
}

#[test]
fn the_page_works_without_scripts() {
    let Some(browser) = Browser::open(Screen::Desktop, Scheme::Light) else { return };
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.go(&page_of(&server));
    (0..7).for_each(|_| assert_eq!(get(server.address("web"), "/hello").status, 200));
    let seven = "<td class=\"n\" data-name=\"Requests\">7</td>";
    wait_until("the page has loaded itself again", || browser.source().contains(seven));
    assert!(browser.source().contains("<noscript>") || browser.source().contains("Loaded anew"));
}

#[test]
fn the_page_fits_on_a_phone() {
    let Some(browser) = Browser::open(Screen::Phone, Scheme::Light) else { return };
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    browser.go(&page_of(&server));
    // Charts with something in them have more numbers, and longer ones.
    (0..20).for_each(|_| assert_eq!(get(server.address("web"), "/").status, 200));
    browser.wait_for("the histogram has bars", HAS_BARS);
    readable(&browser, "admin-phone-light");
    for width in [360, 320, 412, 600, 768, 1024, 1120, 1280] {
        let metrics = json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 700});
        browser.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        fits(&browser, width);
    }
    // What is touched is large enough for a finger (WCAG 2.2, 2.5.8: 24 by 24).
    let small = "[...document.querySelectorAll('a, button')].map(e => e.getBoundingClientRect()) \
                 .filter(r => r.height < 24 || r.width < 24).length";
    assert_eq!(browser.value(small), 0);
}

/// Nothing is to be scrolled sideways, and no text is cut off or lies over another one.
#[track_caller]
fn fits(browser: &Browser, width: u32) {
    let widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]";
    assert_eq!(browser.value(widths), json!([width, width]));
    let narrow = "[...document.querySelectorAll('td, th, p, h2')].filter(e => e.scrollWidth > e.clientWidth + 1 \
                  && e.getClientRects().length && getComputedStyle(e).display !== 'inline' && !e.closest('thead')) \
                  .map(e => e.outerHTML.slice(0, 90))";
    assert_eq!(browser.value(narrow), json!([]), "{width}");
    let outside = "[...document.querySelectorAll('.chart text')].filter(text => { \
                   const [a, b] = [text, text.ownerSVGElement].map(e => e.getBoundingClientRect()); \
                   return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1; }) \
                   .map(text => text.textContent)";
    assert_eq!(browser.value(outside), json!([]), "{width}: outside of their chart");
    let over = "[...document.querySelectorAll('.chart')].flatMap(chart => { \
                const boxes = [...chart.querySelectorAll('text')].map(text => text.getBoundingClientRect()); \
                return boxes.flatMap((a, n) => boxes.slice(n + 1).filter(b => \
                a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)); }).length";
    assert_eq!(browser.value(over), 0, "{width}: texts of a chart lie over each other");
}

#[test]
fn the_page_is_readable_in_the_dark_and_in_the_light() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    Watched::of(&server.worker(0)).signal(Signal::KILL);
    server.wait_status("the worker is back", |status| status.processes.iter().any(|it| it.restarts == 1));
    for (screen, scheme, name) in [
        (Screen::Desktop, Scheme::Dark, "admin-desktop-dark"),
        (Screen::Phone, Scheme::Dark, "admin-phone-dark"),
        (Screen::Desktop, Scheme::Light, "admin-desktop-light-short"),
    ] {
        let Some(browser) = Browser::open(screen, scheme) else { return };
        browser.go(&page_of(&server));
        let back = browser.text("getComputedStyle(document.body).backgroundColor");
        let light: u32 =
            back.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok()).sum();
        assert_eq!(light > 384, scheme == Scheme::Light, "{name}: {back}");
        readable(&browser, name);
    }
}

/// Every text is large enough, and stands out from what is behind it (WCAG 2.2, 1.4.3: 4.5 to 1).
#[track_caller]
fn readable(browser: &Browser, name: &str) {
    browser.wait_for("the script runs", "document.querySelector('#live.ok')");
    browser.picture(name);
    assert_eq!(browser.value(&format!("({FAINT})()")), json!([]), "{name}");
}

/// The texts that are too faint or too small, with their contrast and size.
const FAINT: &str = r"function () {
    const channels = color => color.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const color = channels(getComputedStyle(at).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.getClientRects().length || element.closest('noscript')) continue;
        const style = getComputedStyle(element);
        const color = channels(element.closest('svg') ? style.fill : style.color);
        const [a, b] = [light(color), light(behind(element))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        const box = element.ownerSVGElement;
        const scale = box ? box.getBoundingClientRect().width / box.viewBox.baseVal.width : 1;
        const size = parseFloat(style.fontSize) * scale;
        if (element.localName !== 'title' && (contrast < 4.5 || size < 9))
            faint.push([element.textContent.slice(0, 30), contrast.toFixed(2), size.toFixed(1)]);
    }
    return faint;
}";
