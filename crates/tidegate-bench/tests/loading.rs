//! The load generator against servers that behave, and against others that do not. No upper bound of a time is asserted.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tidegate_bench::{
    Ask, LoadError, LoadReport, LoadSpec, Login, Model, Progress, Server, ServiceKind, Settings, Stop,
    Target, run, run_held,
};
use tidegate_frame::{HEADER, LOGIN, LOGIN_BODY, LoginReply, Status, encode};

const ECHO: Ask = Ask::Echo { size: 64 };

/// A short run against `to`.
fn short(to: impl Into<Target>, ask: Ask) -> LoadSpec {
    LoadSpec {
        connections: 4,
        duration: Duration::from_millis(300),
        warmup: Duration::from_millis(50),
        timeout: Duration::from_secs(30),
        ..LoadSpec::new(vec![to.into()], ask)
    }
}

fn report(spec: &LoadSpec) -> LoadReport {
    run(spec, &Stop::default(), &mut |_| {}).expect("the server is there")
}

fn get(path: &str) -> Ask {
    Ask::Http { path: path.to_owned(), host: "tidegate.example".to_owned(), headers: vec![] }
}

/// The engine with one of its protocols.
fn engine(kind: ServiceKind) -> Server {
    let settings = Settings { max_connections: 1000, pool_threads: NonZero::<usize>::MIN };
    let model = Model::named("epoll-edge-inline", &settings).expect("the default model");
    Server::start(model, &settings, kind, SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
}

/// A server of which each connection is in the hands of `serve`, on a thread of its own.
fn serve(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, stream) = (serve.clone(), stream.expect("a connection"));
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads requests of HTTP, and sends the answer to each, until the peer has gone.
fn answer_http(mut stream: TcpStream, answer: &[u8], count: usize) {
    let mut input = Vec::new();
    let mut buf = [0; 4096];
    for _ in 0..count {
        let end = loop {
            if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buf) {
                Ok(n) if n > 0 => input.extend_from_slice(&buf[..n]),
                _ => return,
            }
        };
        input.drain(..end);
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

#[test]
fn echoes_of_each_size_and_depth_are_all_right() {
    let server = engine(ServiceKind::Echo);
    for (size, pipeline, connections, threads) in
        [(64, 1, 4, 1), (1, 16, 3, 2), (300_000, 4, 2, 1), (100, 1, 300, 2)]
    {
        let spec = LoadSpec { connections, pipeline, threads, ..short(server.address(), Ask::Echo { size }) };
        let report = report(&spec);
        assert_eq!(report.failures.total(), 0, "{size}: {:?}", report.failures);
        assert!(report.requests > 0 && report.latency.p50_us > 0.0, "{report:?}");
        // Of an answer that came while it counted, a part may have come before.
        let begun_before = (size * pipeline * connections) as u64;
        assert!(report.bytes_in + begun_before >= report.requests * size as u64, "{report:?}");
        assert_eq!((report.reconnects, report.unsent), (0, 0));
    }
    server.stop().unwrap();
}

#[test]
fn http_and_frames_are_understood_too() {
    let hello = engine(ServiceKind::Hello);
    let told = report(&LoadSpec { pipeline: 5, ..short(hello.address(), get("/")) });
    assert!(told.failures.total() == 0 && told.requests > 0, "{told:?}");
    hello.stop().unwrap();
    // A frame that comes back as it is has its own code and checksum.
    let echo = engine(ServiceKind::Echo);
    let told = report(&short(echo.address(), Ask::Msg { code: 100, size: 500, login: None }));
    assert!(told.failures.total() == 0 && told.requests > 0, "{told:?}");
    echo.stop().unwrap();
}

#[test]
fn at_a_constant_rate_each_request_that_was_due_is_accounted_for() {
    let server = engine(ServiceKind::Echo);
    let spec = LoadSpec {
        rate: Some(2000.0),
        duration: Duration::from_millis(500),
        connections: 7,
        ..short(server.address(), ECHO)
    };
    let report = report(&spec);
    assert_eq!(report.failures.total(), 0, "{:?}", report.failures);
    let due = report.requests + report.unsent;
    assert!(due.abs_diff(1000) <= 1, "{due}");
    assert!(report.lateness.is_some());
    server.stop().unwrap();
}

#[test]
fn a_server_that_stalls_is_not_spared_what_was_due_meanwhile() {
    const STALL: Duration = Duration::from_millis(300);
    let address = serve(|mut stream| {
        let mut message = [0; 64];
        for nth in 0.. {
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            if nth == 150 {
                thread::sleep(STALL);
            }
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    // One request each millisecond, 100 of them before anything counts: of 600 that count, 300 are due during the stall, and
    // each of the first 200 of them waits for 100 ms at the least.
    let spec = LoadSpec {
        rate: Some(1000.0),
        connections: 1,
        warmup: Duration::from_millis(100),
        duration: Duration::from_millis(600),
        ..short(address, ECHO)
    };
    let report = report(&spec);
    let due = report.requests + report.unsent;
    assert!(due.abs_diff(600) <= 1, "{report:?}");
    assert!(report.latency.p75_us >= 100_000.0, "{report:?}");
    assert!(report.latency.max_us >= 290_000.0, "{report:?}");
}

#[test]
fn what_a_rate_asks_too_much_counts_with_the_time_that_it_waited() {
    // Never answers, so but for the first nothing is ever sent.
    let address = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let spec = LoadSpec {
        rate: Some(100.0),
        connections: 1,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(400),
        timeout: Duration::from_millis(500),
        ..short(address, ECHO)
    };
    let report = report(&spec);
    assert_eq!((report.requests, report.unsent, report.failures.timeout), (0, 39, 1), "{report:?}");
    assert!(report.latency.max_us >= 490_000.0 && report.latency.p50_us >= 200_000.0, "{report:?}");
}

#[test]
fn wrong_answers_and_answers_to_nothing_fail() {
    let garbage = serve(|mut stream| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            message[63] ^= 1;
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    let told = report(&short(garbage, ECHO));
    assert!(told.requests == 0 && told.failures.wrong > 0, "{told:?}");
    assert!(told.failures.first.as_ref().unwrap().ends_with("came back changed at byte 63"), "{told:?}");
    let twice = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(2);
    let twice = serve(move |stream| answer_http(stream, &twice, usize::MAX));
    let told = report(&short(twice, get("/")));
    assert!(told.failures.wrong > 0, "{told:?}");
    assert!(told.failures.first.as_ref().unwrap().contains("nobody had asked for"), "{told:?}");
}

#[test]
fn an_error_status_is_a_failed_request() {
    let address = serve(|stream| {
        answer_http(stream, b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", usize::MAX);
    });
    let told = report(&short(address, get("/")));
    assert!(told.requests == 0 && told.failures.status > 0, "{told:?}");
    assert_eq!(told.failures.first.as_deref(), Some("an answer with status 503"));
}

#[test]
fn a_connection_that_ends_in_order_is_made_anew_and_one_that_breaks_is_a_failure() {
    let once = serve(|stream| {
        answer_http(stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 1);
    });
    let told = report(&short(once, get("/")));
    assert!(told.requests > 0 && told.reconnects > 0, "{told:?}");
    assert_eq!(told.failures.total(), 0, "{told:?}");
    let until_the_end = serve(|stream| answer_http(stream, b"HTTP/1.0 200 OK\r\n\r\nall of it", 1));
    let told = report(&short(until_the_end, get("/")));
    assert!(told.requests > 0 && told.failures.total() == 0, "{told:?}");
    let unanswered = serve(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
    });
    let told = report(&short(unanswered, ECHO));
    assert!(told.requests == 0 && told.failures.closed > 0, "{told:?}");
    // What is closed with input unread is reset (tcp(7)).
    let reset = serve(|mut stream| {
        let _ = stream.read(&mut [0; 1]);
    });
    let told = report(&short(reset, ECHO));
    assert!(told.failures.reset > 0, "{told:?}");
}

#[test]
fn what_is_not_answered_in_time_has_failed() {
    let address = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let told = report(&LoadSpec { timeout: Duration::from_millis(100), ..short(address, ECHO) });
    assert!(told.requests == 0 && told.failures.timeout >= 4, "{told:?}");
    assert!(told.failures.first.as_ref().unwrap().contains("no answer"), "{told:?}");
}

#[test]
fn time_without_a_question_is_no_time_without_an_answer() {
    // Each connection asks once in 2 s, and each answer takes a quarter of one.
    let address = serve(|mut stream| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            thread::sleep(Duration::from_millis(250));
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    let spec = LoadSpec {
        rate: Some(2.0),
        connections: 4,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(4),
        ..short(address, ECHO)
    };
    // The quiet time of a connection is longer than this, and an answer takes less, unless the machine stands still.
    let told = report(&LoadSpec { timeout: Duration::from_millis(1800), ..spec });
    assert_eq!((told.requests, told.failures.total()), (8, 0), "{told:?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = run(&short(address, ECHO), &Stop::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Unreachable(_)), "{error:?}");
    assert_eq!(error.to_string(), format!("connect to {address}: Connection refused (os error 111)"));
    let nowhere = "unix:/nowhere/at/all".parse::<Target>().unwrap();
    let error = run(&short(nowhere, ECHO), &Stop::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("unix:/nowhere/at/all") && error.contains("No such file"), "{error}");
}

#[test]
fn a_unix_socket_is_loaded_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut message = [0; 64];
                while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
            });
        }
    });
    let told = report(&short(path, ECHO));
    assert!(told.requests > 0 && told.failures.total() == 0, "{told:?}");
}

/// Answers a login with this status, and whatever comes behind it with itself.
fn gateway(status: i32) -> SocketAddr {
    serve(move |mut stream| {
        let mut login = [0; HEADER + LOGIN_BODY];
        if stream.read_exact(&mut login).is_err() {
            return;
        }
        let mut answer = Vec::new();
        let reply =
            LoginReply { username: b"u", status: Status::from(status) }.encode().expect("a short name");
        encode(LOGIN, &reply, &mut answer).expect("it fits");
        let mut buf = [0; 4096];
        while stream.write_all(&answer).is_ok() {
            match stream.read(&mut buf) {
                Ok(n) if n > 0 => answer = buf[..n].to_vec(),
                _ => return,
            }
        }
    })
}

#[test]
fn each_connection_logs_in_before_it_asks() {
    let login = Some(Login { user: "u".to_owned(), password: b"p".to_vec() });
    let ask = Ask::Msg { code: 0, size: 0, login };
    let told = report(&short(gateway(0), ask.clone()));
    assert!(told.requests > 0 && told.failures.total() == 0, "{told:?}");
    let error = run(&short(gateway(2), ask), &Stop::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, LoadError::Rejected(text) if text.contains("login was refused")), "{error:?}");
}

#[test]
fn progress_goes_through_all_of_a_run_and_the_seconds_add_up() {
    let server = engine(ServiceKind::Echo);
    let spec = LoadSpec { duration: Duration::from_millis(1500), ..short(server.address(), ECHO) };
    let mut seen = Vec::new();
    let report = run(&spec, &Stop::default(), &mut |progress| seen.push(*progress)).unwrap();
    assert!(seen.iter().any(|p| matches!(p, Progress::WarmingUp { .. })), "{seen:?}");
    let begin = seen.iter().position(|p| *p == Progress::Begin);
    let end = seen.iter().position(|p| *p == Progress::End);
    assert!(begin.is_some() && begin < end, "{seen:?}");
    let measured = seen.iter().filter(|p| matches!(p, Progress::Measuring { .. })).count();
    assert_eq!((measured, report.per_second.len()), (2, 2));
    let ends: Vec<f64> = report.per_second.iter().map(|second| second.at).collect();
    assert!((ends[0] - 1.0).abs() < 1e-9 && (ends[1] - 1.5).abs() < 1e-9, "{ends:?}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["requests"], report.requests);
    let back: LoadReport = serde_json::from_value(json).unwrap();
    assert_eq!(back.per_second, report.per_second);
    server.stop().unwrap();
}

#[test]
fn a_run_that_settles_counts_exactly_what_the_server_answers_meanwhile() {
    let served = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&served);
    let to = serve(move |mut stream| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    let spec = LoadSpec { settle: true, active: 0.5, pipeline: 3, ..short(to, ECHO) };
    let mut seen = Vec::new();
    let report = run(&spec, &Stop::default(), &mut |progress| match progress {
        Progress::Begin | Progress::Settled => seen.push(served.load(Ordering::SeqCst)),
        _ => {}
    })
    .unwrap();
    assert!(seen[0] > 0 && report.requests > 0, "{seen:?} {report:?}");
    assert_eq!((seen[1] - seen[0], served.load(Ordering::SeqCst)), (report.answered, seen[1]), "{report:?}");
    assert!(report.answered >= report.requests && report.failures.total() == 0, "{report:?}");
}

#[test]
fn a_run_that_is_stopped_tells_what_it_has_and_what_was_due_until_then() {
    let server = engine(ServiceKind::Echo);
    for rate in [None, Some(1000.0)] {
        let spec = LoadSpec { rate, duration: Duration::from_secs(600), ..short(server.address(), ECHO) };
        let stop = Stop::default();
        let report = run(&spec, &stop, &mut |progress| {
            if let Progress::Measuring { .. } = progress {
                stop.ask();
            }
        })
        .unwrap();
        assert_eq!((report.stopped_of, report.failures.total()), (Some(600.0), 0), "{report:?}");
        assert!(report.requests > 0 && report.seconds < 600.0, "{report:?}");
        if let Some(rate) = rate {
            let due = (report.requests + report.unsent + report.unanswered) as f64;
            // What was sent between the moment of the stop and the word of it counts too.
            assert!(due >= (report.seconds * rate).floor() && due < 600.0 * rate, "{due} {report:?}");
        }
    }
    let stop = Stop::default();
    stop.ask();
    let error = run(&short(server.address(), ECHO), &stop, &mut |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Stopped), "{error}");
    server.stop().unwrap();
}

#[test]
fn connections_are_kept_and_silent_ones_never_ask() {
    let asked = Arc::new(Mutex::new(HashMap::new()));
    let seen = Arc::clone(&asked);
    let to = serve(move |mut stream| {
        let peer = stream.peer_addr().unwrap();
        seen.lock().unwrap().insert(peer, 0);
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {
            *seen.lock().unwrap().get_mut(&peer).unwrap() += 1;
        }
        seen.lock().unwrap().remove(&peer);
    });
    let from = vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()];
    let spec = LoadSpec { connections: 10, active: 0.3, from, ..short(to, ECHO) };
    let (report, held) = run_held(&spec, &Stop::default(), &mut |_| {}).unwrap();
    assert_eq!((report.asking, report.failures.total(), report.reconnects), (3, 0, 0));
    let now = asked.lock().unwrap().clone();
    assert_eq!((now.len(), now.values().filter(|count| **count > 0).count()), (10, 3), "{now:?}");
    for source in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        let own = now.keys().filter(|peer| peer.ip() == IpAddr::from(source));
        assert_eq!(own.count(), 5, "{now:?}");
    }
    drop(held);
    while !asked.lock().unwrap().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn what_is_due_on_a_free_connection_is_sent_however_late_it_is() {
    let server = engine(ServiceKind::Echo);
    // The last of them are due within the last microseconds, when their timers can only be late.
    let spec = LoadSpec {
        connections: 1000,
        rate: Some(10_000.0),
        warmup: Duration::ZERO,
        duration: Duration::from_millis(100),
        ..short(server.address(), ECHO)
    };
    let report = report(&spec);
    assert_eq!((report.requests, report.unsent, report.failures.total()), (1000, 0, 0), "{report:?}");
    server.stop().unwrap();
}
