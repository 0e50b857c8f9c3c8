//! A web API: notes that can be added, listed and read, with typed handlers and one middleware; and a page with a form that
//! adds one with a file.
//!
//! ```sh
//! cargo run --release -p tidegate --features web --example notes
//! curl -d '{"text":"buy tide tables"}' -H 'Content-Type: application/json' http://127.0.0.1:8090/notes
//! curl http://127.0.0.1:8090/notes/0
//! curl 'http://127.0.0.1:8090/notes?contains=tide'
//! curl -F text=chart -F attachment=@chart.png http://127.0.0.1:8090/
//! xdg-open http://127.0.0.1:8090/
//! ```
//!
//! The notes live in this process, so it serves without workers; a database would be asked in handlers that are
//! `blocking()`, and be the same for all workers.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate::web::{
    FormData, Html, Json, Next, Path, Query, Redirect, Request, Response, State, Status, Web, WebError, get,
    post,
};
use tidegate::{Server, ServerBuilder};

/// No list is without an end.
const MAX_NOTES: usize = 1_000;

/// Nor is a form, with its file.
const MAX_FORM_BYTES: u64 = 64 << 10;

type Notes = Arc<Mutex<Vec<Note>>>;

#[derive(Clone, Deserialize, Serialize)]
struct Note {
    text: String,
    #[serde(skip)]
    attachment: Option<Attachment>,
}

#[derive(Clone)]
struct Attachment {
    name: String,
    content: Arc<Vec<u8>>,
}

#[derive(Deserialize)]
struct Filter {
    contains: Option<String>,
}

fn list(State(notes): State<Notes>, Query(filter): Query<Filter>) -> Json<Vec<Note>> {
    let wanted = filter.contains.unwrap_or_default();
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    Json(notes.iter().filter(|note| note.text.contains(&wanted)).cloned().collect())
}

/// Its number, if there is room for it.
fn keep(notes: &Notes, note: Note) -> Result<usize, Status> {
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    if notes.len() == MAX_NOTES {
        return Err(Status::CONFLICT);
    }
    notes.push(note);
    Ok(notes.len() - 1)
}

fn add(State(notes): State<Notes>, Json(note): Json<Note>) -> Result<(Status, Json<usize>), Status> {
    Ok((Status::CREATED, Json(keep(&notes, note)?)))
}

fn page() -> Html<&'static str> {
    Html(PAGE)
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<title>Notes</title>
<form method="post" enctype="multipart/form-data">
<p><label>Note <input name="text" required></label>
<p><label>File <input name="attachment" type="file"></label>
<p><button>Keep</button>
</form>
"#;

fn add_form(State(notes): State<Notes>, mut form: FormData) -> Result<Redirect, Status> {
    let text = form.text("text").ok_or(Status::UNPROCESSABLE_CONTENT)?.to_owned();
    let attachment = form.take_file("attachment").map(|file| Attachment {
        // What the client calls it may be anything.
        name: file.part().base_name().unwrap_or("attachment").to_owned(),
        content: Arc::new(file.into_data()),
    });
    let at = if attachment.is_some() { "/attachment" } else { "" };
    let id = keep(&notes, Note { text, attachment })?;
    Ok(Redirect::see_other(format!("/notes/{id}{at}")))
}

/// To be kept as a file, and never to be shown as a page of this site: it may be one with scripts.
fn attachment(State(notes): State<Notes>, Path(id): Path<usize>) -> Result<Response, Status> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let found = notes.get(id).and_then(|note| note.attachment.clone()).ok_or(Status::NOT_FOUND)?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._- ".contains(c) { c } else { '_' };
    let name: String = found.name.chars().map(plain).collect();
    Ok(Response::new(Status::OK)
        .header("Content-Type", "application/octet-stream")
        .header("X-Content-Type-Options", "nosniff")
        .header("Content-Disposition", format!("attachment; filename=\"{name}\""))
        .body(&found.content[..]))
}

fn show(State(notes): State<Notes>, Path(id): Path<usize>) -> Result<Json<Note>, Status> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    notes.get(id).cloned().map(Json).ok_or(Status::NOT_FOUND)
}

/// Nobody keeps what may be different in a moment.
fn not_stored(request: Request<'_>, next: Next<'_>) -> Response {
    next.run(request).header("Cache-Control", "no-store")
}

fn web(notes: &Notes) -> Result<Web, WebError> {
    Web::builder()
        .state(Arc::clone(notes))
        .middleware(not_stored)
        .route("/", post(add_form).max_body_bytes(MAX_FORM_BYTES).get(page))
        .route("/notes", get(list).post(add))
        .route("/notes/{id}", get(show))
        .route("/notes/{id}/attachment", get(attachment))
        .build()
}

fn server(address: &str) -> ServerBuilder {
    let notes = Notes::default();
    Server::builder().listen_named("notes", address, move || Ok(web(&notes)?)).workers(0)
}

fn main() -> Result<(), tidegate::Error> {
    server("127.0.0.1:8090").run()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    /// Sends a request with a body of JSON, and hears the whole answer.
    fn ask(address: SocketAddr, request: &str, body: &str) -> String {
        ask_with(address, request, "application/json", body)
    }

    fn ask_with(address: SocketAddr, request: &str, content_type: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let len = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: notes\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn notes_are_added_listed_and_read() {
        let server = server("127.0.0.1:0").spawn().unwrap();
        let address = server.address("notes").unwrap();
        for text in ["low tide", "high tide", "moon"] {
            let answer = ask(address, "POST /notes", &format!("{{\"text\":\"{text}\"}}"));
            assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("no-store"), "{answer}");
        }
        let tides = ask(address, "GET /notes?contains=tide", "");
        assert!(tides.ends_with("\r\n\r\n[{\"text\":\"low tide\"},{\"text\":\"high tide\"}]"), "{tides}");
        assert!(ask(address, "GET /notes/2", "").ends_with("{\"text\":\"moon\"}"));
        assert!(ask(address, "GET /notes/3", "").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "GET /notes/x", "").starts_with("HTTP/1.1 4"));
        assert!(ask(address, "POST /notes", "{").starts_with("HTTP/1.1 4"));
        server.stop();
        server.join().unwrap();
    }

    #[test]
    fn a_form_adds_a_note_with_a_file() {
        let server = server("127.0.0.1:0").spawn().unwrap();
        let address = server.address("notes").unwrap();
        assert!(ask(address, "GET /", "").contains("multipart/form-data"));
        let form = |file: &str| {
            let body = format!(
                "--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nchart\r\n\
                 --x\r\nContent-Disposition: form-data; name=\"attachment\"; {file}\r\n--x--\r\n"
            );
            ask_with(address, "POST /", "multipart/form-data; boundary=x", &body)
        };
        let added = form("filename=\"..\\\\..\\\\chart \\\"1\\\".txt\"\r\n\r\n<script>");
        assert!(
            added.starts_with("HTTP/1.1 303 ") && added.contains("\r\nLocation: /notes/0/attachment\r\n"),
            "{added}"
        );
        let kept = ask(address, "GET /notes/0/attachment", "");
        assert!(kept.contains("filename=\"chart _1_.txt\"") && kept.ends_with("\r\n\r\n<script>"), "{kept}");
        let added = form("filename=\"\"\r\n\r\n");
        assert!(added.contains("\r\nLocation: /notes/1\r\n"), "{added}");
        assert!(ask(address, "GET /notes/1/attachment", "").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "GET /notes/1", "").ends_with("{\"text\":\"chart\"}"));
        assert!(ask(address, "POST /", "{}").starts_with("HTTP/1.1 415 "));
        server.stop();
        server.join().unwrap();
    }
}
