//! From a configuration to a server: which service stands behind each listener, and what it is given.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_accounts::{Accounts, SessionRules, Sessions};
use tidegate_engine::{BoxError, BoxedService, CounterDef, DatagramService, Service};
use tidegate_gateway::{Gateway, OnUnknown};
use tidegate_process::{Child, Part, Role, Signals, TakenOver};
use tidegate_web::Web;

use crate::config::{self, Config, LoadOptions, ServiceName};
use crate::run;
use crate::run::handout::Handout;
use crate::server::{Factory, ListenSpec};
use crate::services::{admin, web};
use crate::status::StatusSource;
use crate::tls::Material;
use crate::{
    Chargen, Daytime, Error, ListenOptions, ServerBuilder, discard, discard_datagrams, echo, echo_datagrams,
};

/// A server of everything that the configuration says: with a data folder, a pid file, a control socket and a log server.
/// A reload serves the same configuration again.
///
/// # Errors
///
/// [`Error::UnknownService`] for a listener whose service this program does not have, and [`Error::Config`] for a certificate
/// that cannot be served.
pub fn from_config(config: Config) -> Result<ServerBuilder, Error> {
    let tls = Material::read(&config, None)?;
    assemble(config, tls)
}

/// The server of a configuration whose certificates have been read.
pub(crate) fn assemble(config: Config, tls: Material) -> Result<ServerBuilder, Error> {
    let tls = Arc::new(tls);
    let shared = Arc::new(config.clone());
    let accounts = Arc::new(Mutex::new(None));
    let mut listeners = Vec::with_capacity(config.listen.len());
    for listener in &config.listen {
        let mut spec = listen_spec(listener, &shared, &accounts)?;
        if listener.tls.is_some() {
            spec.factory = layered(spec.factory, listener.clone(), &shared, &tls);
        }
        listeners.push(spec);
    }
    let tables = web::tables(&config.web);
    Ok(ServerBuilder { listeners, operated: true, tls, tables, ..ServerBuilder::new(config) })
}

/// As [`from_config`], with the configuration that these options find; a reload reads it again, from the same sources.
///
/// # Errors
///
/// That the configuration is wrong, and as [`from_config`].
pub fn from_options(options: &LoadOptions) -> Result<ServerBuilder, Error> {
    let mut source = options.clone();
    // A daemon has another current folder.
    if source.current_dir.is_none() {
        source.current_dir = std::env::current_dir().ok();
    }
    let server = from_config(Config::load(&source)?)?;
    Ok(ServerBuilder { source: Some(source), ..server })
}

/// Plays the part that this process was started for by a master: to be called first in `main`. `None` when it was none.
pub fn run_if_child() -> Option<Result<(), Error>> {
    match Part::from_env() {
        Ok(None) => None,
        Ok(Some(Part::Child(child))) if child.role() == Role::Probe => {
            Some(run::probe::run(of_source, child))
        }
        Ok(Some(Part::Child(child))) => Some(run_child(child)),
        Ok(Some(Part::Successor(taken))) => Some(go_on(taken)),
        Err(error) => Some(Err(error.into())),
    }
}

fn run_child(mut child: Child) -> Result<(), Error> {
    let handout = Handout::take(&mut child)?;
    match assemble(handout.config.clone(), handout.tls.clone()) {
        Ok(server) => server.run_child(child, &handout),
        Err(error) => {
            run::worker::tell(child.failed(&error.to_string()));
            Err(error)
        }
    }
}

/// Goes on where the image before was.
fn go_on(taken: Box<TakenOver>) -> Result<(), Error> {
    let signals = Signals::block()?;
    match of_source(&taken.hooks()["source"]).and_then(ServerBuilder::checked) {
        Ok(server) => run::master::resume(server, signals, taken),
        Err(error) => Err(Error::Service(taken.revert(&error.to_string()).into())),
    }
}

/// The server whose configuration is where the image before found it.
fn of_source(source: &serde_json::Value) -> Result<ServerBuilder, Error> {
    let source: LoadOptions =
        serde_json::from_value(source.clone()).map_err(|error| Error::Service(error.into()))?;
    from_options(&source)
}

/// One pool for all listeners of a worker.
type SharedAccounts = Arc<Mutex<Option<Arc<Accounts>>>>;

fn listen_spec(
    listener: &config::Listener,
    config: &Arc<Config>,
    accounts: &SharedAccounts,
) -> Result<ListenSpec, Error> {
    let config = Arc::clone(config);
    let idle_timeout = config.engine.idle_timeout;
    let is_datagram = listener.address.is_datagram();
    let (counters, factory): (_, Factory) = match &listener.service {
        ServiceName::Echo if is_datagram => datagrams(echo_datagrams),
        ServiceName::Discard if is_datagram => datagrams(discard_datagrams),
        ServiceName::Daytime if is_datagram => datagrams(|| Daytime),
        ServiceName::Chargen if is_datagram => datagrams(|| Chargen),
        ServiceName::Daytime => (&[], Arc::new(|_| Ok(BoxedService::new(Daytime)))),
        ServiceName::Chargen => (&[], Arc::new(|_| Ok(BoxedService::new(Chargen)))),
        ServiceName::Web => {
            let (name, accounts) = (listener.name.to_string(), Arc::clone(accounts));
            let web = move |status: &StatusSource| {
                let sessions = if config.web.api { Some(sessions(&config, &accounts)?) } else { None };
                web::web(&config.web, &name, &status.own_tables(), sessions.as_ref())
            };
            (Web::COUNTERS, Arc::new(move |status| boxed(web(status))))
        }
        ServiceName::Redirect => (Web::COUNTERS, Arc::new(move |_| boxed(web::redirect(&config.web)))),
        ServiceName::Gateway => {
            let accounts = Arc::clone(accounts);
            (Gateway::COUNTERS, Arc::new(move |_| boxed(gateway(&config, &accounts))))
        }
        ServiceName::Admin => (Web::COUNTERS, Arc::new(|status| boxed(admin::admin(status)))),
        ServiceName::Echo => {
            (&[], Arc::new(move |_| Ok(BoxedService::new(echo().idle_timeout(idle_timeout)))))
        }
        ServiceName::Discard => {
            (&[], Arc::new(move |_| Ok(BoxedService::new(discard().idle_timeout(idle_timeout)))))
        }
        ServiceName::Named(name) => {
            return Err(Error::UnknownService {
                listener: listener.name.to_string(),
                service: name.to_string(),
            });
        }
    };
    Ok(ListenSpec {
        name: listener.name.to_string(),
        address: listener.address.clone(),
        options: ListenOptions::of(listener),
        // So that no worker that is stopped keeps an operator waiting.
        answers_for_all: listener.service == ServiceName::Admin,
        service: listener.service.to_string(),
        counters,
        factory,
    })
}

/// The factory of a service under TLS.
fn layered(
    factory: Factory,
    listener: config::Listener,
    config: &Arc<Config>,
    tls: &Arc<Material>,
) -> Factory {
    let (config, tls) = (Arc::clone(config), Arc::clone(tls));
    Arc::new(move |status| {
        let service = factory(status)?;
        Ok(match tls.layer(&listener, &config)? {
            Some(layer) => service.layer(layer),
            None => service,
        })
    })
}

/// Counters and factory of a service of datagrams.
fn datagrams<S: DatagramService>(
    make: impl Fn() -> S + Send + Sync + 'static,
) -> (&'static [CounterDef], Factory) {
    (S::COUNTERS, Arc::new(move |_| Ok(BoxedService::of_datagrams(make()))))
}

fn boxed<S: Service, E: Into<BoxError>>(service: Result<S, E>) -> Result<BoxedService, BoxError> {
    service.map(BoxedService::new).map_err(Into::into)
}

/// The logins of a web listener.
fn sessions(config: &Config, accounts: &SharedAccounts) -> Result<Sessions, BoxError> {
    let rules = SessionRules {
        lifetime: config.web.api_session_lifetime,
        sign_window: config.web.api_sign_window,
        max_failures: config.web.api_max_failures,
        max_registrations: config.web.api_max_registrations,
        ..SessionRules::default()
    };
    Ok(Sessions::new(open_accounts(config, accounts)?, rules))
}

/// The accounts, opened for the first listener of the worker that needs them.
fn open_accounts(config: &Config, accounts: &SharedAccounts) -> Result<Arc<Accounts>, BoxError> {
    let mut shared = accounts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(accounts) = &*shared {
        return Ok(Arc::clone(accounts));
    }
    let options = tidegate_accounts::Options {
        threads: config.accounts.threads,
        queue: config.accounts.queue,
        ..tidegate_accounts::Options::default()
    };
    Ok(Arc::clone(shared.insert(Arc::new(Accounts::open(&config.database().to_string(), options)?))))
}

fn gateway(config: &Config, accounts: &SharedAccounts) -> Result<Gateway, BoxError> {
    let accounts = open_accounts(config, accounts)?;
    let on_unknown = match config.gateway.on_unknown {
        config::OnUnknown::Drop => OnUnknown::Drop,
        config::OnUnknown::Close => OnUnknown::Close,
    };
    Ok(Gateway::builder()
        .heartbeat_interval(config.gateway.heartbeat_interval.unwrap_or_default())
        .max_queued_frames(u32::try_from(config.gateway.max_queued_frames).unwrap_or(u32::MAX))
        .max_frames_per_second(config.gateway.max_frames_per_second)
        .on_unknown(on_unknown)
        .accounts(Some(accounts))
        .build())
}
