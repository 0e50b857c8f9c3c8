//! What was typed behind `tidegate bench echo`, `http` and `msg`, and the [`LoadSpec`] that it means.
//!
//! Bounds are those of [`LoadSpec::check`], which names them; here is only what has to do with words.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tidegate_bench::{Ask, HttpUrl, LoadSpec, Login, Target, name_of, resolve};

use super::args::duration;
use super::tls_args::{Known, TlsArgs};
use crate::password;

#[derive(Debug, clap::Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Bytes of a message
    #[arg(long, value_name = "B", default_value_t = 64)]
    size: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HttpArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// What to get; --to may name it too, as http://127.0.0.1:8080/path, and over TLS as https://127.0.0.1:8443/path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// What the field Host says [default: the address]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// A further field, as "Accept: text/html"; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Each request has a connection of its own
    #[arg(long)]
    close: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FrameArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The code of the frames, which the gateway must answer with the same; 0 is the ping, 6 a login
    #[arg(long, value_name = "N", default_value_t = 0)]
    code: u16,
    /// Bytes of the body
    #[arg(long, value_name = "B", default_value_t = 0)]
    size: usize,
    /// Each connection logs in first, as this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The file whose first line is the password; without it one line is read from standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The server, as 127.0.0.1:7000, host.example.org:7000 or unix:/run/app.sock; several are used in turn
    #[arg(long, required = true, value_name = "ADDR")]
    to: Vec<String>,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 10)]
    connections: usize,
    /// The share of them that asks, from 0 to 1; the others are open and silent
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    active: f64,
    /// An address to connect from, which brings ports of its own; several are used in turn [default: the kernel chooses]
    #[arg(long, value_name = "ADDRESS")]
    from: Vec<IpAddr>,
    /// Requests in flight on each connection
    #[arg(long, value_name = "K", default_value_t = 1)]
    pipeline: usize,
    /// Requests per second over all connections, each due at its time; without it each connection asks as soon as it can
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long is asked before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warmup: Duration,
    /// Threads that ask
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: usize,
    /// How long a connection may take to be made, and to bring anything while an answer is due
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: Box<TlsArgs>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Draws the latency by percentile
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

impl EchoArgs {
    pub(super) fn spec(&self) -> anyhow::Result<LoadSpec> {
        self.load.spec(self.load.targets()?, Ask::Echo { size: self.size }, self.load.known())
    }
}

impl HttpArgs {
    pub(super) fn spec(&self) -> anyhow::Result<LoadSpec> {
        let mut addresses = Vec::with_capacity(self.load.to.len());
        let (mut host, mut path) = (self.host.clone(), self.path.clone());
        let mut schemes = [false; 2];
        for to in &self.load.to {
            let Some(url) = HttpUrl::parse(to) else {
                addresses.push(to.clone());
                schemes[0] = true;
                continue;
            };
            let url = url?;
            schemes[usize::from(url.tls)] = true;
            addresses.push(url.address);
            host.get_or_insert(url.host);
            path.get_or_insert(url.path);
        }
        if schemes == [true; 2] {
            bail!(
                "some of --to are to be reached over TLS and some are not, which would be two loads in one"
            );
        }
        let targets = addresses.iter().map(|to| self.load.target(to)).collect::<anyhow::Result<Vec<_>>>()?;
        // A Unix socket has no name that a server could go by.
        let of_socket =
            |to: &String| if to.starts_with("unix:") { "localhost".to_owned() } else { to.clone() };
        let host = host.or_else(|| addresses.first().map(of_socket)).unwrap_or_default();
        let path = path.unwrap_or_else(|| "/".to_owned());
        let mut headers = self.headers.clone();
        if self.close {
            headers.push(("Connection".to_owned(), "close".to_owned()));
        }
        let name = name_of(&host).to_owned();
        let known = Known { https: schemes[1], name: &name, alpn: Some("http/1.1") };
        self.load.spec(targets, Ask::Http { path, host, headers }, known)
    }
}

impl FrameArgs {
    pub(super) fn spec(&self) -> anyhow::Result<LoadSpec> {
        let targets = self.load.targets()?;
        let login = match &self.user {
            Some(user) => Some(Login { user: user.clone(), password: self.password()? }),
            None => None,
        };
        self.load.spec(targets, Ask::Msg { code: self.code, size: self.size, login }, self.load.known())
    }

    fn password(&self) -> anyhow::Result<Vec<u8>> {
        let Some(file) = &self.password_file else { return password::read(", or --password-file") };
        let text = std::fs::read(file).with_context(|| format!("password file {}", file.display()))?;
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
    }
}

impl LoadArgs {
    fn targets(&self) -> anyhow::Result<Vec<Target>> {
        self.to.iter().map(|to| self.target(to)).collect()
    }

    fn target(&self, to: &str) -> anyhow::Result<Target> {
        Ok(resolve(to, self.timeout)?)
    }

    fn known(&self) -> Known<'_> {
        Known { https: false, name: self.to.first().map_or("", |to| name_of(to)), alpn: None }
    }

    fn spec(&self, to: Vec<Target>, ask: Ask, known: Known<'_>) -> anyhow::Result<LoadSpec> {
        let spec = LoadSpec {
            tls: self.tls.client(known)?,
            from: self.from.clone(),
            connections: self.connections,
            active: self.active,
            pipeline: self.pipeline,
            rate: self.rate,
            duration: self.duration,
            warmup: self.warmup,
            threads: self.threads,
            timeout: self.timeout,
            ..LoadSpec::new(to, ask)
        };
        spec.check()?;
        Ok(spec)
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a field is written NAME: VALUE")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, CommandArgs};
    use crate::bench::BenchArgs;
    use clap::Parser;

    fn parse(line: &str) -> BenchArgs {
        let words = ["tidegate", "bench"].into_iter().chain(line.split_whitespace());
        match Args::try_parse_from(words).unwrap().command {
            Some(CommandArgs::Bench(bench)) => bench,
            other => panic!("{other:?}"),
        }
    }

    fn http(line: &str) -> (Vec<String>, String, String) {
        let BenchArgs::Http(args) = parse(line) else { panic!("another command") };
        let spec = args.spec().expect("an address");
        let Ask::Http { path, host, .. } = spec.ask else { panic!("another question") };
        (spec.to.iter().map(ToString::to_string).collect(), host, path)
    }

    #[test]
    fn everything_that_is_typed_reaches_the_spec() {
        let line = "echo --to 127.0.0.1:7 --to [::1]:8 --size 100 --connections 5 --pipeline 3 --rate 12.5 \
            --duration 2s --warmup 100ms --threads 2 --timeout 3s --active 0.4 --from 127.0.0.2 --from ::1";
        let BenchArgs::Echo(args) = parse(line) else { panic!("another command") };
        let spec = args.spec().unwrap();
        assert_eq!(spec.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:7", "[::1]:8"]);
        assert_eq!(spec.ask, Ask::Echo { size: 100 });
        assert_eq!((spec.connections, spec.pipeline, spec.rate, spec.threads), (5, 3, Some(12.5), 2));
        assert_eq!((spec.asking(), spec.from.len()), (2, 2));
        let times = [spec.duration, spec.warmup, spec.timeout].map(|time| time.as_millis());
        assert_eq!(times, [2000, 100, 3000]);
    }

    #[test]
    fn a_url_says_where_whom_and_what() {
        let both = |to: &str, host: &str, path: &str| (vec![to.to_owned()], host.to_owned(), path.to_owned());
        let told = http("http --to http://127.0.0.1:8080/hello?x=1");
        assert_eq!(told, both("127.0.0.1:8080", "127.0.0.1:8080", "/hello?x=1"));
        let told = http("http --to http://127.0.0.1/ --path /a --host example.org");
        assert_eq!(told, both("127.0.0.1:80", "example.org", "/a"));
        assert_eq!(http("http --to unix:/a"), both("unix:/a", "localhost", "/"));
        let told = http("http --to https://127.0.0.1/a --insecure --close");
        assert_eq!(told, both("127.0.0.1:443", "127.0.0.1", "/a"));
        for (line, why) in [
            ("http --to ftp://127.0.0.1/", "only the schemes http and https"),
            ("http --to https://127.0.0.1/ --to http://127.0.0.1/ --insecure", "two loads in one"),
            ("http --to http://127.0.0.1/ --insecure", "--insecure is about TLS"),
        ] {
            let BenchArgs::Http(args) = parse(line) else { panic!("another command") };
            assert!(args.spec().unwrap_err().to_string().contains(why), "{line}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let BenchArgs::Echo(args) = parse("echo --to 127.0.0.1:7 --size 0") else {
            panic!("another command")
        };
        assert!(args.spec().unwrap_err().to_string().contains("the size of a message"));
        let BenchArgs::Msg(args) = parse("msg --to 127.0.0.1:7 --code 6") else { panic!("another command") };
        assert!(args.spec().unwrap_err().to_string().contains("a user and a password are needed"));
    }

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\r\nmore\n").unwrap();
        let line = format!("msg --to 127.0.0.1:7 --user u --password-file {}", file.path().display());
        let BenchArgs::Msg(args) = parse(&line) else { panic!("another command") };
        let Ask::Msg { login: Some(login), code: 0, .. } = args.spec().unwrap().ask else {
            panic!("no login")
        };
        assert_eq!(login.password, b"secret");
    }
}
