//! What was typed of TLS behind `tidegate bench`, and the [`TlsClient`] that it means.
//!
//! The one invariant: a server's certificate is checked unless `--insecure` was typed.

use std::path::PathBuf;

use anyhow::{Context, bail};
use tidegate::{Roots, TlsClient, TlsVersion};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct TlsArgs {
    /// Over TLS, as a URL of https is anyway
    #[arg(long)]
    tls: bool,
    /// The file (PEM) of the certificates that sign the server's, or of its own [default: those that the system trusts]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    cacert: Option<PathBuf>,
    /// Does not check the server's certificate: whoever answers is taken for the server
    #[arg(long)]
    pub(crate) insecure: bool,
    /// By which name the server is asked for and checked [default: --host, or the name in --to]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// The only version of TLS
    #[arg(long, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    tls_version: Option<String>,
    /// Only these cipher suites, separated by commas, as TLS_AES_128_GCM_SHA256
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    ciphers: Vec<String>,
    /// Each connection begins with a full handshake, in place of going on from an earlier one
    #[arg(long)]
    no_resumption: bool,
}

/// What is known of the server otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// A URL of https was typed.
    pub(crate) https: bool,
    pub(crate) name: &'a str,
    /// The protocol above.
    pub(crate) alpn: Option<&'static str>,
}

/// What an error about trust ends with.
const ADVICE: &str = "--cacert FILE trusts the certificates in FILE, --insecure trusts whoever answers";

impl TlsArgs {
    /// The client's side of TLS; `None`: it was not asked for.
    pub(crate) fn client(&self, known: Known<'_>) -> anyhow::Result<Option<TlsClient>> {
        if !self.tls && !known.https {
            if let Some(option) = self.first_typed() {
                bail!("{option} is about TLS, which was not asked for: --tls does, and a URL of https");
            }
            return Ok(None);
        }
        let name = self.server_name.as_deref().unwrap_or(known.name);
        let mut builder =
            TlsClient::builder().server_name(name).alpn(known.alpn).ciphers(&self.ciphers).advice(ADVICE);
        builder = match &self.cacert {
            _ if self.insecure => builder.insecure(),
            Some(file) => builder.roots(Roots::read(file).context("--cacert")?),
            None => builder.roots(Roots::of_system().context(ADVICE)?),
        };
        builder = match self.tls_version.as_deref() {
            Some("1.2") => builder.only_version(TlsVersion::Tls12),
            Some(_) => builder.only_version(TlsVersion::Tls13),
            None => builder,
        };
        if self.no_resumption {
            builder = builder.without_resumption();
        }
        Ok(Some(builder.build().context("TLS")?))
    }

    fn first_typed(&self) -> Option<&'static str> {
        [
            ("--cacert", self.cacert.is_some()),
            ("--insecure", self.insecure),
            ("--server-name", self.server_name.is_some()),
            ("--tls-version", self.tls_version.is_some()),
            ("--ciphers", !self.ciphers.is_empty()),
            ("--no-resumption", self.no_resumption),
        ]
        .into_iter()
        .find_map(|(name, typed)| typed.then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTPS: Known<'_> = Known { https: true, name: "localhost", alpn: Some("http/1.1") };

    #[test]
    fn it_is_asked_for_by_the_url_or_by_name_and_otherwise_means_nothing() {
        let plain = Known { https: false, ..HTTPS };
        assert!(TlsArgs::default().client(plain).unwrap().is_none());
        let insecure = || TlsArgs { insecure: true, ..TlsArgs::default() };
        assert!(insecure().client(HTTPS).unwrap().is_some());
        assert!(TlsArgs { tls: true, ..insecure() }.client(plain).unwrap().is_some());
        let error = insecure().client(plain).unwrap_err().to_string();
        assert!(error.starts_with("--insecure is about TLS, which was not asked for"), "{error}");
    }

    #[test]
    fn what_cannot_be_says_why() {
        let error = |args: TlsArgs| format!("{:#}", args.client(HTTPS).unwrap_err());
        let told = error(TlsArgs { cacert: Some("/nowhere".into()), ..TlsArgs::default() });
        assert!(told.starts_with("--cacert: /nowhere: "), "{told}");
        let told = error(TlsArgs { insecure: true, ciphers: vec!["X".to_owned()], ..TlsArgs::default() });
        assert!(
            told.starts_with("TLS: no cipher suite \"X\" with these versions; there are TLS_AES"),
            "{told}"
        );
        let told =
            error(TlsArgs { insecure: true, server_name: Some("a b".to_owned()), ..TlsArgs::default() });
        assert!(told.contains("\"a b\" is no name of a server"), "{told}");
    }
}
