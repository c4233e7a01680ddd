//! `queuewarden.toml`: where the process listens, keeps its state, and how much it takes on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::asterisk::{self, AmiSettings, Named};
use crate::config::audit::{self, AuditSettings};
use crate::config::fingerprint::Fingerprint;
use crate::config::problem::Problems;
use crate::config::reader::{Located, Section, Source};
use crate::dialect::DialectLabel;
use crate::limits::{
    ADMIN_HOSTS_MAX, CONNECTIONS_DEFAULT, CONNECTIONS_MAX, DRAIN_DELAY_SECONDS_MAX, EVAPI_PEERS_MAX, METRIC_QUEUES_MAX,
    TOKEN_BYTES_MAX, TOML_FILE_BYTES_MAX,
};
use crate::telephony::{Token, closed_list};

/// What the file of the process says.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Where to listen.
    pub listen: Listen,
    /// Where the state is kept.
    pub state: State,
    /// How the audit log is kept; `None`: not at all.
    pub audit: Option<AuditSettings>,
    /// Connections of all dialects together.
    pub connections_max: usize,
    /// Queues with a series of their own in the metrics; 0: none.
    pub sessions_by_queue_max: usize,
    /// From the moment at which a stop is seen in `/readyz` to that at which nobody is let in any more.
    pub drain_delay: Duration,
    /// The Kamailios to dial (`[connect] evapi`).
    pub evapi: Vec<SocketAddr>,
    /// The Asterisks to dial (`[[connect.asterisk_ami]]`).
    pub asterisk_ami: Vec<AmiSettings>,
}

/// The file of the process that was read.
pub(super) struct Read {
    pub(super) settings: ProcessSettings,
    /// The organizations that it names.
    pub(super) named: Vec<Named>,
}

/// Where to listen; `None` is off.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The dialects over TCP: each with its key and its address.
    pub dialects: Vec<(DialectLabel, &'static str, Option<SocketAddr>)>,
    /// The line dialect, a Unix socket.
    pub line_unix: Option<PathBuf>,
    /// The secret that a line peer has to present; `None`: none is needed, and any is refused.
    pub line_token: Option<Secret>,
    /// Operators and Prometheus, HTTP over TCP.
    pub admin: Option<SocketAddr>,
    /// Operators, HTTP over a Unix socket.
    pub admin_unix: Option<PathBuf>,
    /// The secret with which requests over TCP may change something; `None`: none may.
    pub admin_token: Option<Secret>,
    /// Names by which requests over TCP may call us, beside addresses and `localhost`.
    pub admin_hosts: Vec<Box<str>>,
}

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether it survives the process.
    pub store: Store,
    /// The folder of the lock and the store.
    pub folder: PathBuf,
}

closed_list! {
    /// Where login sessions live.
    Store {
        /// In memory and on disk.
        Disk = "disk",
        /// In memory only.
        Memory = "memory",
    }
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The bytes to compare with.
    #[must_use]
    pub const fn reveal(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

const OFF: &str = "off";

/// The dialects over TCP: the key of each, and the port of those that are on unless they are turned off.
const DIALECTS: &[(DialectLabel, &str, Option<u16>)] = &[
    (DialectLabel::Line, "line", Some(4571)),
    (DialectLabel::FastAgi, "fastagi", Some(4573)),
    (DialectLabel::FreeSwitch, "freeswitch", None),
    (DialectLabel::JsonRpc, "kamailio", None),
];

pub(super) fn read(
    folder: &Path,
    problems: &RefCell<Problems>,
    warnings: &mut Problems,
    fingerprint: &Fingerprint,
) -> Option<Read> {
    let source = match Source::read(&folder.join("queuewarden.toml"), TOML_FILE_BYTES_MAX) {
        Ok(source) => source,
        Err(problem) => {
            let help =
                "a configuration folder holds queuewarden.toml, organizations/ and models/; name it with --config";
            problems.borrow_mut().add(problem.help(help));
            return None;
        }
    };
    fingerprint.add(&folder.join("queuewarden.toml"), source.text.as_bytes());
    read_from(&source, folder, problems, warnings)
}

pub(super) fn read_from(
    source: &Source,
    folder: &Path,
    problems: &RefCell<Problems>,
    warnings: &mut Problems,
) -> Option<Read> {
    let table = source.parse(&mut problems.borrow_mut())?;
    let mut root = Section::root(source, &table, problems);
    let listen = read_listen(root.section("listen"), folder, warnings);
    let state = read_state(root.section("state"), folder);
    let audit = audit::read(root.section("audit"), folder, &state.folder);
    let (connections_max, drain_delay) = read_limits(root.section("limits"));
    let sessions_by_queue_max = read_sessions_by_queue_max(root.section("metrics"));
    let (mut evapi, mut asterisk_ami, mut named) = (vec![], vec![], vec![]);
    if let Some(mut section) = root.section("connect") {
        evapi = read_evapi(&mut section, warnings);
        (asterisk_ami, named) = asterisk::read(section.sections("asterisk_ami"), folder, warnings);
        section.finish();
    }
    root.finish();
    let settings = ProcessSettings {
        listen,
        state,
        audit,
        connections_max,
        sessions_by_queue_max,
        drain_delay,
        evapi,
        asterisk_ami,
    };
    Some(Read { settings, named })
}

fn read_listen(section: Option<Section<'_>>, folder: &Path, warnings: &mut Problems) -> Listen {
    const fn loopback(port: u16) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
    }
    let mut listen = Listen {
        dialects: DIALECTS.iter().map(|&(label, key, port)| (label, key, port.map(loopback))).collect(),
        line_unix: None,
        line_token: None,
        admin: Some(loopback(9471)),
        admin_unix: None,
        admin_token: None,
        admin_hosts: vec![],
    };
    let Some(mut section) = section else { return listen };
    listen.line_token = read_token(&mut section, "line_token_file", folder);
    listen.admin_token = read_token(&mut section, "admin_token_file", folder);
    let guarded = listen.line_token.is_some();
    for (label, key, address) in &mut listen.dialects {
        let guarded = guarded && *label == DialectLabel::Line;
        *address = read_address(
            &mut section,
            key,
            *address,
            if guarded { Reachable::Silently } else { Reachable::Warned },
            warnings,
        );
    }
    let socket = |path: Located<&str>| (path.value != OFF).then(|| folder.join(path.value));
    listen.line_unix = section.string("line_unix").and_then(socket);
    let open = if listen.admin_token.is_some() { Reachable::Silently } else { Reachable::Refused };
    listen.admin = read_address(&mut section, "admin", listen.admin, open, warnings);
    listen.admin_unix = section.string("admin_unix").and_then(socket);
    listen.admin_hosts = read_hosts(&mut section);
    section.finish();
    listen
}

/// What is said of an address that others than this machine can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reachable {
    Silently,
    Warned,
    Refused,
}

fn read_address(
    section: &mut Section<'_>,
    key: &'static str,
    default: Option<SocketAddr>,
    open: Reachable,
    warnings: &mut Problems,
) -> Option<SocketAddr> {
    let Some(text) = section.string(key) else { return default };
    if text.value == OFF {
        return None;
    }
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let message = format!("`{key}` must be an address and a port");
        section.report_with_help(&text.span, message, "for example \"127.0.0.1:4571\", or \"off\"");
        return None;
    };
    if !address.ip().is_loopback() && open != Reachable::Silently {
        let message = format!("`{key}` listens on {address}, where others than this machine may ask");
        if open == Reachable::Refused {
            let help = format!("name a file with a secret in `{key}_token_file`, or listen on 127.0.0.1");
            section.report_with_help(&text.span, message, help);
            return None;
        }
        let help = "listen on 127.0.0.1, or let a firewall admit the PBX only";
        warnings.add(section.source.problem(text.span, message).help(help));
    }
    Some(address)
}

/// Names of hosts, as they stand in front of the port in an address that is typed.
fn read_hosts(section: &mut Section<'_>) -> Vec<Box<str>> {
    let mut hosts = vec![];
    for host in section.strings("admin_hosts") {
        let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if host.value.is_empty() || host.value.len() > 255 || !host.value.bytes().all(of_name) {
            let help = "a name in small letters, without a port, like \"pbx.example.org\"";
            section.report_with_help(&host.span, format!("`{}` is no name of a host", host.value), help);
        } else if hosts.len() == ADMIN_HOSTS_MAX {
            section.report(&host.span, format!("`admin_hosts` may list {ADMIN_HOSTS_MAX} names at most"));
        } else {
            hosts.push(host.value.into());
        }
    }
    hosts
}

fn read_token(section: &mut Section<'_>, key: &'static str, folder: &Path) -> Option<Secret> {
    let path = section.string(key)?;
    let help = format!("1 to {TOKEN_BYTES_MAX} of A-Z a-z 0-9 _ - . : @ + * #, and nothing else");
    let admits = |text: &str| Token::parse(text.as_bytes()).is_some();
    read_secret(section, &path, folder, TOKEN_BYTES_MAX, admits, ("the token file", &help))
}

/// Reads a file that holds one secret, and a newline if an editor left one; `what` names it, with help.
pub(super) fn read_secret(
    section: &Section<'_>,
    path: &Located<&str>,
    folder: &Path,
    bytes_max: usize,
    admits: impl Fn(&str) -> bool,
    (what, help): (&str, &str),
) -> Option<Secret> {
    let source = match Source::read(&folder.join(path.value), (bytes_max as u64).saturating_add(1)) {
        Ok(source) => source,
        Err(problem) => {
            section.report(&path.span, format!("{what} {problem}"));
            return None;
        }
    };
    let text = source.text.strip_suffix('\n').unwrap_or(&source.text);
    if !admits(text) {
        section.report_with_help(&path.span, format!("{what} holds what is no secret of its kind"), help);
        return None;
    }
    Some(Secret::new(text.to_owned()))
}

fn read_state(section: Option<Section<'_>>, folder: &Path) -> State {
    let mut state = State { store: Store::Disk, folder: folder.join("state") };
    let Some(mut section) = section else { return state };
    section.one_of("store", Store::ALL.iter().map(|store| store.name()));
    if let Some(store) = section.string("store") {
        if let Some(named) = Store::named(store.value) {
            state.store = named;
        } else {
            let message = format!("`store` must be \"disk\" or \"memory\", not \"{}\"", store.value);
            section.report(&store.span, message);
        }
    }
    if let Some(path) = section.string("folder") {
        state.folder = folder.join(path.value);
    }
    section.finish();
    state
}

/// How many connections at once, and how long a stop is announced before it begins.
fn read_limits(section: Option<Section<'_>>) -> (usize, Duration) {
    let Some(mut section) = section else { return (CONNECTIONS_DEFAULT, Duration::ZERO) };
    let connections = section.integer("connections_max", 1..=CONNECTIONS_MAX as u64);
    let delay = section.integer("drain_delay_seconds", 0..=DRAIN_DELAY_SECONDS_MAX);
    section.finish();
    let connections = connections.and_then(|connections| usize::try_from(connections).ok());
    (connections.unwrap_or(CONNECTIONS_DEFAULT), Duration::from_secs(delay.unwrap_or_default()))
}

fn read_sessions_by_queue_max(section: Option<Section<'_>>) -> usize {
    let Some(mut section) = section else { return 0 };
    let queues = section.integer("sessions_by_queue_max", 0..=METRIC_QUEUES_MAX);
    section.finish();
    queues.and_then(|queues| usize::try_from(queues).ok()).unwrap_or(0)
}

fn read_evapi(section: &mut Section<'_>, warnings: &mut Problems) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = vec![];
    for text in section.strings("evapi") {
        match text.value.parse::<SocketAddr>() {
            Ok(address) if addresses.contains(&address) => {
                section.report(&text.span, format!("`evapi` lists {address} twice"));
            }
            Ok(_) if addresses.len() == EVAPI_PEERS_MAX => {
                section.report(&text.span, format!("`evapi` may list {EVAPI_PEERS_MAX} Kamailios at most"));
            }
            Ok(address) => {
                if !address.ip().is_loopback() {
                    let message = format!("`evapi` dials {address}, and nobody proves there to be Kamailio");
                    let help = "evapi has no password: dial 127.0.0.1, or let a firewall see to it";
                    warnings.add(section.source.problem(text.span.clone(), message).help(help));
                }
                addresses.push(address);
            }
            Err(_) => section.report(&text.span, "`evapi` must list addresses and ports, like \"127.0.0.1:8448\""),
        }
    }
    addresses
}

impl ProcessSettings {
    /// Whether `self` and `other` differ in what only a restart brings: listeners, links, the state folder. Secrets are
    /// taken up without one.
    #[must_use]
    pub fn needs_restart_for(&self, other: &Self) -> bool {
        let ports = |settings: &Self| {
            let listen = &settings.listen;
            (
                listen.dialects.clone(),
                listen.admin,
                settings.evapi.clone(),
                listen.line_unix.clone(),
                listen.admin_unix.clone(),
                settings.state.clone(),
                settings.audit.clone(),
                settings.connections_max,
                settings.sessions_by_queue_max,
                (settings.drain_delay, listen.admin_hosts.clone()),
            )
        };
        let links = |settings: &Self, of: &Self| {
            let (links, others) = (&settings.asterisk_ami, &of.asterisk_ami);
            links.len() == others.len() && links.iter().zip(others).all(|(link, other)| link.is_same_link(other))
        };
        ports(self) != ports(other) || !links(self, other)
    }
}
