//! Register and login, from the wire to the database and back.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use tidegate_engine::Reason;
use tidegate_frame::{LOGIN, LoginReply, LoginRequest, REGISTER, RegisterReply, RegisterRequest};
use tidegate_gateway::accounts::{Accounts, Credentials, Options};
use tidegate_gateway::{Client, Frame, Gateway, GatewayBuilder, Status};

use crate::served::{Served, WAIT};

fn database(dir: &tempfile::TempDir, options: Options) -> Arc<Accounts> {
    let url = format!("sqlite:{}", dir.path().join("accounts.db").display());
    Arc::new(
        Accounts::open(&url, Options { memory_kib: 8, passes: 1, busy_timeout: WAIT, ..options }).unwrap(),
    )
}

fn with_accounts(accounts: &Arc<Accounts>) -> GatewayBuilder {
    Gateway::builder().accounts(Some(Arc::clone(accounts)))
}

fn login_frame(username: &[u8], password: &[u8]) -> Vec<u8> {
    LoginRequest { username, password }.encode().unwrap().to_vec()
}

/// Keeps the only thread of a pool busy until something is sent.
fn block(accounts: &Accounts) -> Sender<()> {
    let (release, released) = channel();
    let (reached, reaching) = channel();
    let nobody = Credentials::new(b"nobody", b"nothing").unwrap();
    let hold = move |_| {
        reached.send(()).unwrap();
        released.recv_timeout(WAIT).unwrap();
    };
    accounts.submit_login(nobody, hold).unwrap();
    reaching.recv_timeout(WAIT).unwrap();
    release
}

#[test]
fn replies_are_byte_for_byte_those_of_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(with_accounts(&database(&dir, Options::default())));
    let mut client = served.client();
    let request = RegisterRequest { kind: 1, username: b"user", password: b"pass" }.encode().unwrap();
    let mut bytes = vec![0x00, 0x6c, 0x00, 0x05, 0xf8, 0x9f, 0x02, 0x02];
    bytes.extend(request);
    // Byte by byte, and the next request in the same write as the last byte.
    let (last, first) = bytes.split_last().unwrap();
    for byte in first {
        client.send_raw(&[*byte]).unwrap();
    }
    let mut rest = vec![*last, 0x00, 0x68, 0x00, 0x06, 0xae, 0x56, 0x04, 0x77];
    rest.extend(login_frame(b"user", b"pass"));
    client.send_raw(&rest).unwrap();

    let mut expected = vec![0, 0, 0, 0];
    expected.extend(b"user");
    expected.resize(100, 0);
    assert_eq!(client.recv().unwrap(), Frame { code: REGISTER, body: expected });
    let mut expected = b"user".to_vec();
    expected.resize(96, 0);
    assert_eq!(client.recv().unwrap(), Frame { code: LOGIN, body: expected });
    assert_eq!((served.count("registers"), served.count("logins")), (1, 1));
    served.stop();
}

#[test]
fn each_outcome_has_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(with_accounts(&database(&dir, Options::default())));
    let mut client = served.client();
    assert_eq!(client.register(1, b"ada", b"secret").unwrap(), Status::Done);
    assert_eq!(client.register(1, b"ada", b"other").unwrap(), Status::NameTaken);
    assert_eq!(client.login(b"ada", b"secret").unwrap(), Status::Done);
    assert_eq!(client.login(b"ada", b"other").unwrap(), Status::Refused);
    assert_eq!(client.login(b"nobody", b"secret").unwrap(), Status::Refused);
    assert_eq!(client.register(1, b"", b"secret").unwrap(), Status::Invalid);
    assert_eq!(client.register(1, b"a\nb", b"secret").unwrap(), Status::Invalid);
    assert_eq!(client.login(b"ada", b"").unwrap(), Status::Invalid);
    // Full fields, which have no NUL at their end.
    assert_eq!(client.register(1, &[b'n'; 56], &[b'p'; 40]).unwrap(), Status::Done);
    assert_eq!(client.login(&[b'n'; 56], &[b'p'; 40]).unwrap(), Status::Done);
    assert_eq!(client.login(&[b'n'; 56], &[b'p'; 39]).unwrap(), Status::Refused);
    assert_eq!(served.count("accounts_refused"), 7);
    served.stop();
}

#[test]
fn an_unknown_user_gets_the_answer_of_a_wrong_password() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(with_accounts(&database(&dir, Options::default())));
    let mut client = served.client();
    client.send(LOGIN, &login_frame(b"ada", b"wrong")).unwrap();
    let unknown = client.recv().unwrap();
    assert_eq!(client.register(1, b"ada", b"secret").unwrap(), Status::Done);
    client.send(LOGIN, &login_frame(b"ada", b"wrong")).unwrap();
    assert_eq!(client.recv().unwrap(), unknown);
    assert_eq!(LoginReply::parse(&unknown.body).unwrap().status, Status::Refused);
    served.stop();
}

#[test]
fn a_wrong_body_size_is_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(with_accounts(&database(&dir, Options::default())));
    for (code, size) in [(REGISTER, 96), (REGISTER, 0), (LOGIN, 100), (LOGIN, 95)] {
        let mut client = served.client();
        client.send(code, &vec![0; size]).unwrap();
        client.recv().unwrap_err();
        assert_eq!(served.closed().reason, Reason::BAD_BODY_SIZE);
    }
    assert_eq!((served.count("bad_body_size"), served.closed_for(Reason::BAD_BODY_SIZE)), (4, 4));
    served.stop();
}

#[test]
fn handlers_know_who_has_logged_in() {
    const WHO: u16 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let builder = with_accounts(&database(&dir, Options::default())).on(WHO, |ctx, _| {
        let user = ctx.user().unwrap_or("nobody").to_owned();
        ctx.reply(WHO, user.as_bytes())
    });
    let served = Served::start(builder);
    let mut client = served.client();
    let who = |client: &mut Client| {
        client.send(WHO, b"").unwrap();
        client.recv().unwrap().body
    };
    assert_eq!(client.register(1, b"ada", b"secret").unwrap(), Status::Done);
    assert_eq!(client.login(b"ada", b"wrong").unwrap(), Status::Refused);
    assert_eq!(who(&mut client), b"nobody");
    assert_eq!(client.login(b"ada", b"secret").unwrap(), Status::Done);
    assert_eq!(who(&mut client), b"ada");
    assert_eq!(who(&mut served.client()), b"nobody");
    served.stop();
}

#[test]
fn two_gateways_share_one_database() {
    let dir = tempfile::tempdir().unwrap();
    // Each has a pool and connections of its own, as two worker processes have.
    let one = Served::start(with_accounts(&database(&dir, Options::default())));
    let two = Served::start(with_accounts(&database(&dir, Options::default())));
    assert_eq!(one.client().register(1, b"ada", b"secret").unwrap(), Status::Done);
    assert_eq!(two.client().login(b"ada", b"secret").unwrap(), Status::Done);
    assert_eq!(two.client().register(1, b"ada", b"secret").unwrap(), Status::NameTaken);
    assert_eq!(two.client().register(1, b"bob", b"secret").unwrap(), Status::Done);
    assert_eq!(one.client().login(b"bob", b"secret").unwrap(), Status::Done);
    one.stop();
    two.stop();
}

#[test]
fn a_full_queue_is_busy_and_the_loop_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = database(&dir, Options { threads: 1, queue: 1, ..Options::default() });
    let release = block(&accounts);
    let served = Served::start(with_accounts(&accounts));
    let (mut queued, mut refused) = (served.client(), served.client());
    queued.send(LOGIN, &login_frame(b"ada", b"secret")).unwrap();
    served.wait_for_count("logins", 1);
    assert_eq!(refused.login(b"ada", b"secret").unwrap(), Status::Busy);
    let request = RegisterRequest { kind: 1, username: b"ada", password: b"secret" }.encode().unwrap();
    refused.send(REGISTER, &request).unwrap();
    let reply = refused.recv().unwrap();
    assert_eq!(
        RegisterReply::parse(&reply.body).unwrap(),
        RegisterReply { status: Status::Busy, username: b"ada" }
    );
    refused.ping().unwrap();
    assert_eq!(served.count("accounts_busy"), 2);
    release.send(()).unwrap();
    let reply = queued.recv().unwrap();
    assert_eq!(LoginReply::parse(&reply.body).unwrap().status, Status::Refused);
    served.stop();
}

#[test]
fn an_answer_whose_connection_has_gone_reaches_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = database(&dir, Options { threads: 1, ..Options::default() });
    assert_eq!(accounts.register(1, b"ada", b"secret").unwrap(), tidegate_gateway::accounts::Outcome::Done);
    let release = block(&accounts);
    let served = Served::start(with_accounts(&accounts));

    let mut gone = std::net::TcpStream::connect(served.address).unwrap();
    gone.set_read_timeout(Some(WAIT)).unwrap();
    let mut bytes = vec![0, 8, 0, 0, 0, 0, 0, 0];
    tidegate_frame::encode(LOGIN, &login_frame(b"ada", b"secret"), &mut bytes).unwrap();
    std::io::Write::write_all(&mut gone, &bytes).unwrap();
    served.wait_for_count("logins", 1);
    // A socket that is closed with unread bytes sends a reset (RFC 2525, section 2.17).
    assert_ne!(gone.peek(&mut [0; 8]).unwrap(), 0);
    drop(gone);
    let gone = served.closed();
    assert_eq!(gone.reason, Reason::PEER_RESET);

    let mut next = served.client();
    next.ping().unwrap();
    release.send(()).unwrap();
    // The pool has one thread, so the answer for the one that has gone is made before this one's.
    assert_eq!(next.login(b"ada", b"wrong").unwrap(), Status::Refused);
    next.ping().unwrap();
    assert_eq!(served.count("stale_results"), 1);
    drop(next);
    let next = served.closed();
    assert_eq!(next.id.slot(), gone.id.slot(), "the slot was taken again");
    assert_ne!(next.id.generation(), gone.id.generation());
    served.stop();
}

#[test]
#[should_panic(expected = "code 6 is register or login")]
fn a_handler_of_the_program_for_login_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = database(&dir, Options::default());
    let _ = with_accounts(&accounts).on(LOGIN, |_, _| Ok(tidegate_gateway::Flow::Continue)).build();
}

#[test]
fn a_gateway_without_accounts_may_have_its_own_login() {
    let served = Served::start(Gateway::builder().on(LOGIN, |ctx, _| ctx.reply(LOGIN, b"welcome")));
    let mut client = served.client();
    client.send(LOGIN, b"").unwrap();
    assert_eq!(client.recv().unwrap().body, b"welcome");
    served.stop();
}
