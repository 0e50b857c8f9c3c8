//! What the engine makes of a layer, by one that is as simple as can be; what TLS makes of it is tested where TLS is.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_engine::{
    BoxedService, EngineConfig, Layer, LayerError, LayerProgress, LayerSession, LayerState, Limits,
    LoopBuilder, Metrics, Peer, Reason, Security,
};

use crate::lab::{Control, Lab};
use crate::support::{Client, PATIENCE, check_the_books, prepare_the_process, until};

under_all_models_at_once!(padding_is_no_progress_of_a_body);

/// Zeros are padding, a `(` begins what is whole with a `)`, and everything else means itself.
struct Padded;

impl Layer for Padded {
    fn accept(&self, _: &Peer<'_>) -> Box<dyn LayerSession> {
        Box::new(Self)
    }
}

impl LayerSession for Padded {
    fn receive(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<LayerProgress, LayerError> {
        let whole = match input.iter().rposition(|byte| *byte == b'(') {
            Some(begin) if !input[begin..].contains(&b')') => begin,
            _ => input.len(),
        };
        plain.extend(input[..whole].iter().filter(|byte| ![0, b'(', b')'].contains(byte)));
        Ok(LayerProgress { consumed: whole, state: LayerState::Open })
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
        out.extend_from_slice(plain);
        Ok(())
    }

    fn close(&mut self, _: &mut Vec<u8>) {}

    fn security(&self) -> Security {
        Security { protocol: "padded", cipher: "none", alpn: None, server_name: None, resumed: false }
    }
}

fn padding_is_no_progress_of_a_body(config: EngineConfig) {
    prepare_the_process();
    let limits = Limits {
        min_rate_bytes: 10_000,
        min_rate_grace: Duration::from_millis(150),
        body_timeout: Some(PATIENCE),
        ..Limits::default()
    };
    let (seen, _seen) = channel();
    let lab = Lab {
        limits,
        overload_answer: None,
        control: Arc::<Control>::default(),
        seen,
        unblock: Mutex::new(channel().1),
    };
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let metrics = Metrics::on_heap(1).process(0);
    let service = BoxedService::new(lab).layer(Arc::new(Padded));
    let builder = LoopBuilder::new(config).metrics(metrics.clone());
    let running = builder.listen_boxed("lab", socket, Ok(service)).spawn().unwrap();
    let closed = |reason| metrics.listener(0).closed(reason);

    // As fast as 200 KB/s, padded or not; which leaves room for a slow machine.
    let send = |client: &Client, piece: &[u8]| {
        std::thread::park_timeout(Duration::from_millis(5));
        std::io::Write::write_all(&mut client.stream(), piece)
    };
    let mut fast = Client::new(address);
    fast.send("body 400000\n");
    (0..40).for_each(|_| send(&fast, &[b'x'; 10_000]).unwrap());
    fast.expect("body done");
    // What is not whole yet counts, as long as it comes.
    fast.send("body 100000\n(");
    (0..100).for_each(|_| send(&fast, &[b'x'; 1000]).unwrap());
    fast.send(")");
    fast.expect("body done");
    for padding in [&[0; 1000][..], &[b"(", &[0; 998][..], b")"].concat()] {
        let before = closed(Reason::SLOW_BODY);
        let padded = Client::new(address);
        padded.send("body 400000\n");
        assert!((0..4000).any(|_| send(&padded, padding).is_err()), "the server is patient");
        until(|| closed(Reason::SLOW_BODY) == before + 1);
    }
    drop(fast);
    running.stop();
    running.join().unwrap();
    check_the_books(&metrics.listener(0));
}
