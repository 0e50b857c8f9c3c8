//! A web API: notes that can be added, listed and read, with typed handlers and one middleware.
//!
//! ```sh
//! cargo run --release -p tidegate --features web --example notes
//! curl -d '{"text":"buy tide tables"}' -H 'Content-Type: application/json' http://127.0.0.1:8090/notes
//! curl http://127.0.0.1:8090/notes/0
//! curl 'http://127.0.0.1:8090/notes?contains=tide'
//! ```
//!
//! The notes live in this process, so it serves without workers; a database would be asked in handlers that are
//! `blocking()`, and be the same for all workers.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate::web::{Json, Next, Path, Query, Request, Response, State, Status, Web, WebError, get};
use tidegate::{Server, ServerBuilder};

/// No list is without an end.
const MAX_NOTES: usize = 1_000;

type Notes = Arc<Mutex<Vec<Note>>>;

#[derive(Clone, Deserialize, Serialize)]
struct Note {
    text: String,
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

fn add(State(notes): State<Notes>, Json(note): Json<Note>) -> Result<(Status, Json<usize>), Status> {
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    if notes.len() == MAX_NOTES {
        return Err(Status::CONFLICT);
    }
    notes.push(note);
    Ok((Status::CREATED, Json(notes.len() - 1)))
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
        .route("/notes", get(list).post(add))
        .route("/notes/{id}", get(show))
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
        let mut stream = TcpStream::connect(address).unwrap();
        let len = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: notes\r\nConnection: close\r\nContent-Type: application/json\r\n\
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
}
