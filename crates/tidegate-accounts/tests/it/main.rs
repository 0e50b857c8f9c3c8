//! Accounts on real SQLite files, alone and with several openers.

use std::net::IpAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use tidegate_accounts::{
    Accounts, AccountsError, Credentials, Login, Options, Outcome, SessionRules, Sessions, Token,
};

const WAIT: Duration = Duration::from_secs(30);

fn cheap() -> Options {
    Options { memory_kib: 8, passes: 1, busy_timeout: WAIT, ..Options::default() }
}

fn url(dir: &tempfile::TempDir) -> String {
    format!("sqlite:{}", dir.path().join("accounts.db").display())
}

#[test]
fn registering_and_logging_in() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::open(&url(&dir), cheap()).unwrap();
    assert_eq!(accounts.register(1, b"ada", b"secret").unwrap(), Outcome::Done);
    assert_eq!(accounts.register(2, b"ada", b"other").unwrap(), Outcome::NameTaken);
    assert_eq!(accounts.login(b"ada", b"secret").unwrap(), Outcome::Done);
    assert_eq!(accounts.login(b"ada", b"other").unwrap(), Outcome::Refused);
    assert_eq!(accounts.login(b"bob", b"secret").unwrap(), Outcome::Refused);
    assert_eq!(accounts.register(1, b"", b"secret").unwrap(), Outcome::Invalid);
    assert_eq!(accounts.login(b"ada", &[b'x'; 41]).unwrap(), Outcome::Invalid);
    drop(accounts);

    let again = Accounts::open(&url(&dir), cheap()).unwrap();
    assert_eq!(again.login(b"ada", b"secret").unwrap(), Outcome::Done);
}

#[test]
fn the_defaults_make_the_hash_that_owasp_recommends() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::open(&url(&dir), Options::default()).unwrap();
    assert_eq!(accounts.register(1, b"ada", b"secret").unwrap(), Outcome::Done);
    let database = rusqlite::Connection::open(dir.path().join("accounts.db")).unwrap();
    let hash: String = database.query_row("SELECT password FROM users", [], |row| row.get(0)).unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert!(!hash.contains("secret"));
}

#[test]
fn answers_come_on_threads_of_the_pool() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::open(&url(&dir), cheap()).unwrap();
    let (answer, answers) = bounded(2);
    let second = answer.clone();
    let ada = Credentials::new(b"ada", b"secret").unwrap();
    accounts
        .submit_register(1, ada.clone(), move |result| {
            answer.send((result, thread::current().name().unwrap().to_owned())).unwrap();
        })
        .unwrap();
    let (result, name) = answers.recv_timeout(WAIT).unwrap();
    assert_eq!(result.unwrap(), Outcome::Done);
    assert!(name.starts_with("accounts-"), "{name}");
    accounts.submit_login(ada, move |result| second.send((result, String::new())).unwrap()).unwrap();
    assert_eq!(answers.recv_timeout(WAIT).unwrap().0.unwrap(), Outcome::Done);
}

#[test]
fn of_many_who_want_one_name_at_once_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    // Eight openers of a file that is not there yet stand for the workers of a server that starts.
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (url, start) = (url(&dir), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let accounts = Accounts::open(&url, Options { threads: 1, ..cheap() }).unwrap();
                start.wait();
                accounts.register(1, b"ada", b"secret").unwrap()
            })
        })
        .collect();
    let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Outcome::Done).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == Outcome::NameTaken).count(), 7, "{outcomes:?}");
}

#[test]
fn a_database_that_cannot_be_used_is_refused_in_words() {
    let error = Accounts::open("postgres://user:geheim@db/tidegate", cheap()).unwrap_err();
    assert!(matches!(error, AccountsError::NotYet(_)));
    assert_eq!(error.to_string(), "a PostgreSQL database is not supported yet, use sqlite:PATH");
    let error = Accounts::open("accounts.db", cheap()).unwrap_err();
    assert!(matches!(error, AccountsError::BadUrl));
}

/// What a login with a password leads to.
fn log_in(sessions: &Sessions, name: &str, password: &str) -> Login {
    let credentials = Credentials::new(name.as_bytes(), password.as_bytes()).expect("valid credentials");
    let address = Some(IpAddr::from([192, 0, 2, 1]));
    wait_for(|done| sessions.submit_login(credentials, address, done))
}

fn find(sessions: &Sessions, token: Token) -> Option<String> {
    let session = sessions.find(token).expect("a decision");
    session.map(|session| session.user().name().to_owned())
}

/// What is answered to a request that is not refused at once.
fn wait_for<T: Send + 'static>(
    submit: impl FnOnce(Box<dyn FnOnce(Result<T, AccountsError>) + Send>) -> Result<(), AccountsError>,
) -> T {
    let (answer, answers) = bounded(1);
    submit(Box::new(move |result| answer.send(result).expect("somebody waits"))).expect("room in the queue");
    answers.recv_timeout(WAIT).expect("an answer").expect("a decision")
}

#[test]
fn a_session_is_known_to_all_who_have_the_database_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let accounts = Arc::new(Accounts::open(&url(&dir), cheap()).unwrap());
            Sessions::new(accounts, SessionRules::default())
        })
        .collect();
    workers[0].accounts().register(1, b"ada", b"secret").unwrap();
    let Login::Granted(token, session) = log_in(&workers[1], "ada", "secret") else { panic!("refused") };
    assert_eq!((session.user().name(), session.user().kind()), ("ada", 1));
    assert_eq!(find(&workers[0], token.clone()).as_deref(), Some("ada"));
    assert!(wait_for(|done| workers[0].submit_logout(token.clone(), done)));
    assert_eq!(find(&workers[1], token), None);
}

#[test]
fn guesses_are_counted_for_all_and_cost_no_hash_when_there_were_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let rules = SessionRules { max_failures: 2, ..SessionRules::default() };
    let workers: Vec<_> = (0..2)
        .map(|_| Sessions::new(Arc::new(Accounts::open(&url(&dir), cheap()).unwrap()), rules))
        .collect();
    workers[0].accounts().register(1, b"ada", b"secret").unwrap();
    assert_eq!(log_in(&workers[0], "ada", "guess"), Login::Refused);
    assert_eq!(log_in(&workers[1], "ada", "guess"), Login::Refused);
    for worker in &workers {
        assert!(matches!(log_in(worker, "ada", "secret"), Login::TooMany(wait) if wait.as_secs() > 600));
    }
    assert!(matches!(log_in(&workers[0], "bob", "secret"), Login::Refused));
}
