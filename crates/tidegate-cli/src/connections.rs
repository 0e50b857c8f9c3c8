//! `tidegate connections`: what is connected, page after page.
//!
//! The one invariant: no more than a page is held, however many connections the server has.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tidegate::config::LoadOptions;
use tidegate::log::Colour;
use tidegate::{ConnectionPage, ConnectionStatus};

use crate::ask::{Patience, Reply, ask_at, nobody};
use crate::configuration::of_running;
use crate::failure::Failure;
use crate::human;
use crate::output::{Form, colour, print, say};
use crate::table::{Cell, Column, Table, Tone, number, word};

/// Which connections are to be listed.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    /// Those behind this id; `None`: from the first on.
    pub(crate) after: Option<String>,
    /// How many are asked for at once; `None`: as many as suit.
    pub(crate) limit: Option<u32>,
    /// Whether to go on until there are no more.
    pub(crate) all: bool,
    pub(crate) form: Form,
}

/// Lists them.
pub(crate) fn list(options: &LoadOptions, listing: &Listing) -> Result<(), Failure> {
    let config = of_running(options)?;
    let mut printer = Printer::new(listing.form, colour());
    let end = follow(&config.control_socket(), listing, |answer, page| print(printer.show(answer, page)))?;
    let Some(end) = end else { return Err(nobody(&config).into()) };
    for missing in &end.missing {
        say(&format!("tidegate: {missing}; its connections are missing here"));
    }
    if let (Some(next), Form::Text) = (&end.next, listing.form) {
        say(&format!("tidegate: there are more: go on with --after {next}, or list them with --all"));
    }
    Ok(())
}

/// What is left to say when everything is printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct End {
    /// Where the next page begins.
    next: Option<String>,
    /// Each once, although every page names them.
    missing: BTreeSet<String>,
}

/// Asks for pages and shows them; `None` when nobody listens there.
fn follow(
    socket: &Path,
    listing: &Listing,
    mut show: impl FnMut(&[u8], &ConnectionPage) -> Result<(), Failure>,
) -> Result<Option<End>, Failure> {
    let mut after = listing.after.clone();
    let mut missing = BTreeSet::new();
    loop {
        let Some((answer, page)) = ask_page(socket, listing, after.as_deref())? else { return Ok(None) };
        show(&answer, &page)?;
        missing.extend(page.missing.into_iter().take(MAX_MISSING));
        if page.next.is_none() || !listing.all {
            return Ok(Some(End { next: page.next, missing }));
        }
        if page.next == after {
            return Err(anyhow!("the server goes round in circles: its pages do not end").into());
        }
        after = page.next;
    }
}

fn ask_page(
    socket: &Path,
    listing: &Listing,
    after: Option<&str>,
) -> anyhow::Result<Option<(Vec<u8>, ConnectionPage)>> {
    let mut request = "connections".to_owned();
    if let Some(id) = after {
        request.push_str(&format!(" after={id}"));
    }
    if let Some(limit) = listing.limit.or(listing.all.then_some(LIMIT_OF_ALL)) {
        request.push_str(&format!(" limit={limit}"));
    }
    match ask_at(socket, &request, Patience::SHORT)? {
        Reply::Given(answer) => {
            let page = serde_json::from_slice(&answer).context("the server's answer is not understood")?;
            Ok(Some((answer, page)))
        }
        Reply::Refused(why) => bail!("the server refuses: {why}"),
        Reply::Nobody => Ok(None),
    }
}

/// Turns pages into what is printed.
struct Printer {
    form: Form,
    table: Table<10>,
}

impl Printer {
    fn new(form: Form, colour: Colour) -> Self {
        Self { form, table: Table::new(HEAD, colour) }
    }

    /// JSON as the server gave it, a page on each line.
    fn show(&mut self, answer: &[u8], page: &ConnectionPage) -> Vec<u8> {
        match self.form {
            Form::Json => [answer.trim_ascii_end(), b"\n"].concat(),
            Form::Text => {
                let rows: Vec<_> = page.connections.iter().map(row).collect();
                let mut text = String::new();
                self.table.write(&rows, &mut text);
                text.into_bytes()
            }
        }
    }
}

fn row(connection: &ConnectionStatus) -> [Cell; 10] {
    let ms = |ms: u64| human::time(Duration::from_millis(ms));
    let next = connection.next_close.as_ref();
    let next = next.map_or("-".to_owned(), |next| format!("{} in {}", next.reason, ms(next.in_ms)));
    let queued = if connection.queued == 0 { Tone::Plain } else { Tone::Notice };
    [
        (&*connection.id).into(),
        (&*connection.listener).into(),
        (&*connection.service).into(),
        (&*connection.peer).into(),
        ms(connection.age_ms).into(),
        (&*connection.state).into(),
        human::bytes(connection.bytes_in).into(),
        human::bytes(connection.bytes_out).into(),
        Cell::toned(human::bytes(connection.queued), queued),
        next.into(),
    ]
}

const HEAD: [Column; 10] = [
    word("ID"),
    word("LISTENER"),
    word("SERVICE"),
    word("PEER"),
    number("AGE"),
    word("STATE"),
    number("IN"),
    number("OUT"),
    number("QUEUED"),
    word("CLOSES NEXT"),
];

/// How many are asked for at once when all are wanted.
const LIMIT_OF_ALL: u32 = 1000;
/// More processes than a server has.
const MAX_MISSING: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::tests::FakeServer;

    const FIRST: &str = r#"{"connections":[{"id":"1.0.0.12.3","generation":1,"worker":0,"listener":"web","service":"web","peer":"127.0.0.1:4711","age_ms":192000,"state":"idle","bytes_in":80,"bytes_out":1536,"queued":0,"next_close":{"reason":"keep-alive-timeout","in_ms":42000}}],"next":"1.0.0.12.3","missing":["worker 1 (pid 77) does not answer"]}"#;
    const LAST: &str = r#"{"connections":[{"id":"1.0.1.4.1","generation":1,"worker":0,"listener":"gateway","service":"gateway","peer":"[::1]:9","age_ms":20,"state":"sending","bytes_in":0,"bytes_out":0,"queued":2048,"next_close":null}],"next":null,"missing":["worker 1 (pid 77) does not answer"]}"#;

    fn listing(all: bool, form: Form) -> Listing {
        Listing { after: None, limit: None, all, form }
    }

    /// What is asked, what is printed, and what is left to say.
    fn run(answers: &[&str], listing: &Listing) -> (Vec<String>, String, Result<Option<End>, Failure>) {
        let server = FakeServer::new(&answers.iter().map(|answer| Some(*answer)).collect::<Vec<_>>());
        let mut printed = Vec::new();
        let mut printer = Printer::new(listing.form, Colour::Off);
        let end = follow(&server.socket(), listing, |answer, page| {
            printed.extend(printer.show(answer, page));
            Ok(())
        });
        (server.asked(), String::from_utf8(printed).unwrap(), end)
    }

    #[test]
    fn a_page_is_a_table_and_tells_where_the_next_begins() {
        let (asked, printed, end) = run(&[FIRST], &Listing { limit: Some(1), ..listing(false, Form::Text) });
        assert_eq!(asked, ["connections limit=1\n"]);
        assert_eq!(
            printed,
            "ID          LISTENER  SERVICE  PEER              AGE  STATE   IN     OUT  QUEUED  CLOSES NEXT\n\
             1.0.0.12.3  web       web      127.0.0.1:4711  3m12s  idle   80B  1.5KiB      0B  keep-alive-timeout in 42s\n"
        );
        let end = end.unwrap().unwrap();
        assert_eq!(end.next.as_deref(), Some("1.0.0.12.3"));
        assert_eq!(end.missing.into_iter().collect::<Vec<_>>(), ["worker 1 (pid 77) does not answer"]);
    }

    #[test]
    fn all_pages_are_followed_with_one_head_and_each_warning_once() {
        let (asked, printed, end) = run(&[FIRST, LAST], &listing(true, Form::Text));
        assert_eq!(asked, ["connections limit=1000\n", "connections after=1.0.0.12.3 limit=1000\n"]);
        assert_eq!((printed.lines().count(), printed.matches("CLOSES NEXT").count()), (3, 1), "{printed}");
        assert!(printed.ends_with("  2.0KiB  -\n"), "{printed}");
        let end = end.unwrap().unwrap();
        assert_eq!((end.next, end.missing.len()), (None, 1));
    }

    #[test]
    fn json_is_a_page_on_each_line() {
        let (_, printed, _) = run(&[FIRST, LAST], &listing(true, Form::Json));
        assert_eq!(printed, format!("{FIRST}\n{LAST}\n"));
    }

    #[test]
    fn pages_that_do_not_get_on_are_an_end() {
        let from = Listing { after: Some("1.0.0.12.3".to_owned()), ..listing(true, Form::Text) };
        let (asked, _, end) = run(&[FIRST], &from);
        assert_eq!(asked, ["connections after=1.0.0.12.3 limit=1000\n"]);
        assert!(end.unwrap_err().text().unwrap().contains("in circles"));
    }

    #[test]
    fn a_refusal_is_a_failure() {
        let (_, printed, end) = run(&[r#"{"error":"no such id"}"#], &listing(false, Form::Text));
        assert_eq!(printed, "");
        assert_eq!(end.unwrap_err().text().unwrap(), "the server refuses: no such id");
    }
}
