//! The service `web`, as the configuration says it: from words to a [`WebBuilder`].
//!
//! Invariant: nothing is decided here. Keys become calls; what cannot be served is the builder's error.

use std::sync::Arc;

use tidegate_accounts::Sessions;
use tidegate_engine::{BoxError, Words};
use tidegate_web::{
    Access, AccessFormat, FilesOptions, Hsts, LOGIN_LIMIT_TABLES, Networks, REQUEST_LIMIT_WORDS,
    RequestIdMode, RequestRate, SiteBuilder, SiteRedirect, Status, Web, WebBuilder,
};

use crate::config::{self, WebSite};
use crate::tables::{TableSizes, Tables};

/// The service of a listener with `service = "web"`. `tables` has one for each site with a limit of requests; with `sessions`,
/// accounts are served under `/api`.
pub(crate) fn web(
    config: &config::Web,
    listener: &str,
    tables: &Tables,
    sessions: Option<&Sessions>,
) -> Result<Web, BoxError> {
    let mut builder = general(config)?.request_limit_tables(own_tables(config, listener, tables));
    builder = match &config.root {
        Some(root) => builder.files(files(config, None, root.clone())),
        None if config.respond.iter().any(|respond| respond.path == "/") => builder,
        None => builder.builtin_site(),
    };
    for respond in &config.respond {
        let status = status(respond.status)?;
        builder = builder.respond(&respond.path, status, &respond.content_type, respond.body.as_bytes());
    }
    if let Some(sessions) = sessions {
        builder = builder.accounts_api("/api", sessions);
    }
    for site in config.site.iter().filter(|site| is_on(site, listener)) {
        builder = builder.site(named(config, site)?);
    }
    Ok(builder.build()?)
}

/// The service of a listener with `service = "redirect"`.
pub(crate) fn redirect(config: &config::Web) -> Result<Web, BoxError> {
    Ok(general(config)?.redirect_to_https(config.https_port).build()?)
}

/// The memory for the limits of all sites: a site has one limit, on however many listeners and loops it is.
pub(crate) fn tables(config: &config::Web) -> TableSizes {
    let count = config.site.iter().map(tables_of).sum();
    TableSizes { count, words: REQUEST_LIMIT_WORDS, ..TableSizes::default() }
}

/// How many tables a site has.
fn tables_of(site: &WebSite) -> usize {
    let limits_logins = site.basic_auth.as_ref().is_some_and(|auth| auth.max_failures > 0);
    usize::from(site.limit_requests.is_some()) + if limits_logins { LOGIN_LIMIT_TABLES } else { 0 }
}

/// The tables of the sites of a listener, in their order.
fn own_tables(config: &config::Web, listener: &str, tables: &Tables) -> Vec<Arc<dyn Words>> {
    let mut next = 0;
    let of_sites = config.site.iter().map(|site| {
        let first = next;
        next += tables_of(site);
        (site, first..next)
    });
    let here = of_sites.filter(|(site, _)| is_on(site, listener));
    here.flat_map(|(_, numbers)| numbers).filter_map(|number| tables.get(number)).collect()
}

/// Whether a listener has a site.
fn is_on(site: &WebSite, listener: &str) -> bool {
    site.listeners.is_empty() || site.listeners.iter().any(|name| name.as_str() == listener)
}

/// What goes for all sites. Every key is named here, so that one which is not served does not compile.
fn general(config: &config::Web) -> Result<WebBuilder, BoxError> {
    let config::Web {
        keep_alive,
        head_timeout,
        min_rate,
        min_rate_grace,
        max_connections_per_address,
        max_head_bytes,
        max_fields,
        max_target_bytes,
        max_body_bytes,
        max_overhead_bytes,
        max_requests_per_connection,
        trusted_proxies,
        access_log,
        access_log_sample,
        request_id,
        // The listener's: its layer of TLS, and `redirect`.
        handshake_timeout: _,
        https_port: _,
        // Of the sessions, which the worker has.
        api: _,
        api_session_lifetime: _,
        api_sign_window: _,
        api_max_failures: _,
        api_max_registrations: _,
        // `web` and `named`.
        respond: _,
        site: _,
        // `files`.
        root: _,
        index: _,
        try_files: _,
        autoindex: _,
        cache_control: _,
        error_pages: _,
        compress: _,
        precompressed: _,
        dot_files: _,
        max_cached_files: _,
        max_cached_bytes: _,
        max_ranges: _,
    } = config;
    let mut builder = Web::builder()
        .keep_alive(*keep_alive)
        .head_timeout(*head_timeout)
        .min_rate(*min_rate)
        .min_rate_grace(*min_rate_grace)
        .max_connections_per_address(*max_connections_per_address)
        .max_head_bytes(max_head_bytes.as_usize())
        .max_fields(*max_fields)
        .max_target_bytes(max_target_bytes.as_usize())
        .max_body_bytes(max_body_bytes.get())
        .max_overhead_bytes(max_overhead_bytes.as_usize())
        .max_requests_per_connection(*max_requests_per_connection)
        .trusted_proxies(Networks::new(trusted_proxies)?)
        .request_ids(match request_id {
            config::RequestId::Off => RequestIdMode::Off,
            config::RequestId::New => RequestIdMode::New,
            config::RequestId::Accept => RequestIdMode::Accept,
        });
    let format = match access_log {
        config::AccessLog::Off => None,
        config::AccessLog::Combined => Some(AccessFormat::Combined),
        config::AccessLog::Json => Some(AccessFormat::Json),
    };
    if let Some(format) = format {
        builder = builder.access_log(format, *access_log_sample);
    }
    Ok(builder)
}

fn named(config: &config::Web, site: &WebSite) -> Result<SiteBuilder, BoxError> {
    let any = [String::from("*")];
    let hosts = if site.hosts.is_empty() { &any[..] } else { &site.hosts };
    let access = Access { allow: Networks::new(&site.allow)?, deny: Networks::new(&site.deny)? };
    let mut builder = SiteBuilder::new(hosts).access(access).limit_rate(site.limit_rate.get());
    let root = site.root.as_ref().or(config.root.as_ref()).filter(|root| !root.as_os_str().is_empty());
    if let Some(root) = root {
        builder = builder.files(files(config, Some(site), root.clone()));
    }
    for config::Redirect { from, to, status: code } in &site.redirects {
        builder =
            builder.redirect(SiteRedirect { from: from.clone(), to: to.clone(), status: status(*code)? });
    }
    for (name, value) in &site.headers {
        builder = builder.field(name, value);
    }
    if let Some(auth) = &site.basic_auth {
        builder = builder.basic_auth(&auth.realm, &auth.users).max_login_failures(auth.max_failures);
    }
    if let Some(limit) = site.limit_requests {
        builder = builder.limit_requests(RequestRate { per_second: limit.rate, burst: limit.burst });
    }
    if let Some(config::Hsts { max_age, subdomains, preload }) = site.hsts {
        builder = builder.hsts(Hsts { max_age, subdomains, preload });
    }
    Ok(builder)
}

/// How files are served: as the site says, and as all sites do where it says nothing.
fn files(config: &config::Web, site: Option<&WebSite>, root: std::path::PathBuf) -> FilesOptions {
    macro_rules! said {
        ($name:ident) => {
            site.and_then(|site| site.$name.as_ref()).unwrap_or(&config.$name)
        };
    }
    let mut files = FilesOptions::new(root)
        .index(said!(index))
        .try_files(said!(try_files))
        .autoindex(*said!(autoindex))
        .compress(*said!(compress))
        .precompressed(*said!(precompressed))
        .dot_files(*said!(dot_files))
        .max_cached_files(config.max_cached_files)
        .max_cached_bytes(config.max_cached_bytes.as_usize())
        .max_ranges(config.max_ranges);
    for config::CacheControl { files: glob, value } in said!(cache_control) {
        files = files.cache_control(glob, value);
    }
    for (status, path) in said!(error_pages) {
        files = files.error_page(status, path);
    }
    files
}

fn status(code: u16) -> Result<Status, BoxError> {
    Status::from_code(code).ok_or_else(|| format!("{code} is no status").into())
}
