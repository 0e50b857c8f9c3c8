//! The measuring path as a whole, with an engine in this process. No time is asserted.

use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use tidegate_bench::measure::{Subject, Times, measure};
use tidegate_bench::{
    Ask, CountingTool, LoadSpec, Model, Scenario, Server, ServiceKind, Settings, Stop, run,
};

const MOMENT: Duration = Duration::from_millis(100);

fn few(service: ServiceKind, pipeline: usize) -> Scenario {
    Scenario { name: "few", service, connections: 20, active: 0.5, pipeline }
}

#[test]
fn an_engine_in_this_process_is_measured() {
    let settings = Settings { max_connections: 100, pool_threads: NonZero::<usize>::MIN };
    for name in Model::NAMES {
        let model = Model::named(name, &settings).unwrap();
        for (service, pipeline) in [
            (ServiceKind::Hello, 1),
            (ServiceKind::Hello, 16),
            (ServiceKind::Echo, 4),
            (ServiceKind::Sleep, 2),
        ] {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let server = Server::start(model, &settings, service, any).unwrap();
            let subject = Subject { pid: std::process::id(), address: server.address() };
            let (trace, tool) = (Duration::ZERO, CountingTool::Auto);
            let times = Times { warmup: MOMENT, measure: MOMENT, trace, tool };
            let sample = measure(subject, &few(service, pipeline), &times, &Stop::default()).unwrap();
            assert!(sample.requests > 0, "{name}, {service}: no answers");
            assert_eq!(sample.failures.total(), 0, "{name}, {service}: {:?}", sample.failures);
            assert!(sample.latency.max_us >= sample.latency.p50_us);
            server.stop().unwrap();
        }
    }
}

#[test]
fn a_share_of_the_connections_asks_for_large_messages() {
    let settings = Settings { max_connections: 1000, pool_threads: NonZero::<usize>::MIN };
    let model = Model::named("epoll-edge-inline", &settings).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start(model, &settings, ServiceKind::Echo, any).unwrap();
    let spec = LoadSpec {
        from: vec![[127, 0, 0, 2].into()],
        connections: 10,
        active: 0.2,
        pipeline: 3,
        warmup: MOMENT,
        duration: MOMENT,
        ..LoadSpec::new(vec![server.address().into()], Ask::Echo { size: 100_000 })
    };
    let report = run(&spec, &Stop::default(), &mut |_| {}).unwrap();
    assert_eq!((report.connections, report.asking), (10, 2));
    assert!(report.requests > 0 && report.failures.total() == 0, "{report:?}");
    server.stop().unwrap();
}
