//! `tidegate cert --self-signed`: a certificate for a first try, signed by itself.
//!
//! The one invariant: nothing that exists is overwritten, and the key is never readable by others, not even for a moment.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use crate::failure::Failure;
use crate::output::print;

/// What is wanted.
#[derive(Debug)]
pub(crate) struct SelfSigned {
    /// Names and addresses of hosts; the first is the subject, too.
    pub(crate) hosts: Vec<String>,
    pub(crate) days: u32,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes the certificate and its key, and says how to use them.
pub(crate) fn make(wanted: &SelfSigned) -> Result<(), Failure> {
    let (certificate, key) = signed(wanted)?;
    write(wanted, &certificate, &key)?;
    print(how_to_use(wanted))
}

/// The certificate and its key, in PEM.
fn signed(wanted: &SelfSigned) -> anyhow::Result<(String, String)> {
    for host in &wanted.hosts {
        if !is_host(host) {
            bail!("--host {host}: neither a host's name, as example.org or *.example.org, nor an address");
        }
    }
    let mut params = CertificateParams::new(wanted.hosts.clone()).context("the names of the hosts")?;
    let now = SystemTime::now();
    // Clocks differ; a certificate that is valid from tomorrow on would be a riddle.
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(u64::from(wanted.days) * 86_400)).into();
    params.distinguished_name.remove(DnType::CommonName);
    if let Some(host) = wanted.hosts.first() {
        params.distinguished_name.push(DnType::CommonName, host.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().context("making a key")?;
    let certificate = params.self_signed(&key).context("signing the certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// A name or an address that a certificate can be for.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(is_label))
}

/// Both files, or neither.
fn write(wanted: &SelfSigned, certificate: &str, key: &str) -> anyhow::Result<()> {
    if wanted.cert == wanted.key {
        bail!("--cert and --key name the same file, {}", wanted.cert.display());
    }
    write_new(&wanted.cert, certificate, 0o644)?;
    write_new(&wanted.key, key, 0o600).inspect_err(|_| {
        // It was made a moment ago, and is of no use without its key.
        let _ = fs::remove_file(&wanted.cert);
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.with_context(|| {
        format!("{} is not written; a file that exists is not overwritten", path.display())
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("writing {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn how_to_use(wanted: &SelfSigned) -> String {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (cert, key) = (absolute(&wanted.cert), absolute(&wanted.key));
    let host = wanted.hosts.first().map_or("localhost", String::as_str);
    let hosts = wanted.hosts.join(", ");
    let days = wanted.days;
    format!(
        "{} is a certificate for {hosts}, valid for {days} days; {} is its key.\n\
         \n\
         In the configuration:\n\
         \n    [[listen]]\n    name = \"https\"\n    address = \"127.0.0.1:8443\"\n    service = \"web\"\n    \
         tls = {{ cert = \"{}\", key = \"{}\" }}\n\
         \n\
         To try it:\n\
         \n    curl --cacert {} --connect-to {host}:8443:127.0.0.1:8443 https://{host}:8443/\n\
         \n\
         Nobody but who is given the certificate trusts it: for the open internet have one signed.\n",
        wanted.cert.display(),
        wanted.key.display(),
        cert.display(),
        key.display(),
        cert.display(),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for good in ["localhost", "example.org", "*.example.org", "127.0.0.1", "::1", "a-b.c_d", "1.example"]
        {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "*", "a..b", "-a", "a-", "a b", "https://a", "a/b", "*.*.a", &"a".repeat(64)] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_the_key_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = SelfSigned {
            hosts: vec!["localhost".into(), "127.0.0.1".into()],
            days: 1,
            cert: folder.path().join("a.pem"),
            key: folder.path().join("a.key"),
        };
        let (certificate, key) = signed(&wanted).unwrap();
        write(&wanted, &certificate, &key).unwrap();
        tidegate::Certificate::read(&wanted.cert, &wanted.key).unwrap();
        let mode = fs::metadata(&wanted.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = format!("{:#}", write(&wanted, "x", "y").unwrap_err());
        assert!(error.contains("a.pem is not written") && error.contains("exists"), "{error}");
        fs::remove_file(&wanted.cert).unwrap();
        let error = format!("{:#}", write(&wanted, "x", "y").unwrap_err());
        assert!(error.contains("a.key is not written"), "{error}");
        assert!(!wanted.cert.exists(), "a certificate without its key is of no use");
        assert_eq!(fs::read_to_string(&wanted.key).unwrap(), key);
    }
}
