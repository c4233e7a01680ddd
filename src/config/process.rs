//! `queuewarden.toml`: the addresses that the process listens on and connects to, its state folder, and its limits.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::asterisk_ami::{self, AmiSettings};
use crate::config::audit::{self, AuditSettings};
use crate::config::fingerprint::Fingerprint;
use crate::config::freeswitch_esl::{self, EslSettings};
use crate::config::links::ReferencedOrganization;
use crate::config::problem::Problems;
use crate::config::reader::{Section, Source, SpannedStr};
pub use crate::config::secret::Secret;
use crate::config::secret::SecretFile;
use crate::dialect::DialectLabel;
use crate::limits::{
    ADMIN_HOSTS_MAX, CONNECTIONS_DEFAULT, CONNECTIONS_MAX, DRAIN_DELAY_SECONDS_MAX, EVAPI_PEERS_MAX, METRIC_QUEUES_MAX,
    TOKEN_BYTES_MAX, TOML_FILE_BYTES_MAX,
};
use crate::telephony::{Token, closed_list};

/// The settings of the process.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// The listeners.
    pub listen: ListenSettings,
    /// The session store.
    pub state: StateSettings,
    /// The audit log. `None`: none is written.
    pub audit: Option<AuditSettings>,
    /// Greatest number of connections of all dialects together.
    pub connections_max: usize,
    /// Greatest number of queues with a time series of their own in the metrics; 0: none.
    pub sessions_by_queue_max: usize,
    /// Time between the moment `/readyz` announces a stop and the moment no connection is accepted any more.
    pub drain_delay: Duration,
    /// The Kamailio servers to connect to (`[connect] evapi`).
    pub evapi: Vec<SocketAddr>,
    /// The Asterisk servers to connect to (`[[connect.asterisk_ami]]`).
    pub asterisk_ami: Vec<AmiSettings>,
    /// The FreeSWITCH servers to connect to (`[[connect.freeswitch_esl]]`).
    pub freeswitch_esl: Vec<EslSettings>,
}

/// The file of the process, read.
pub(super) struct ProcessFile {
    pub(super) settings: ProcessSettings,
    /// The organizations that the file names.
    pub(super) referenced: Vec<ReferencedOrganization>,
}

/// The listeners. `None`: the listener is off.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// Each dialect over TCP: its key in `[listen]` and its address.
    pub dialects: Vec<(DialectLabel, &'static str, Option<SocketAddr>)>,
    /// The Unix socket of the line dialect.
    pub line_unix: Option<PathBuf>,
    /// The token that a line peer has to present. `None`: no token is needed, and any token is refused.
    pub line_token: Option<Secret>,
    /// The admin listener over TCP: HTTP for operators and Prometheus.
    pub admin: Option<SocketAddr>,
    /// The Unix socket of the admin listener.
    pub admin_unix: Option<PathBuf>,
    /// The token with which an admin request over TCP may change something. `None`: no such request may.
    pub admin_token: Option<Secret>,
    /// Values of the `Host` header that admin requests over TCP may have, beside addresses and `localhost`.
    pub admin_hosts: Vec<Box<str>>,
}

/// The settings of the session store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// Whether login sessions survive the process.
    pub store: StoreKind,
    /// The folder of the lock file and of the store.
    pub folder: PathBuf,
}

closed_list! {
    /// Where login sessions are stored.
    StoreKind {
        /// In memory and on disk.
        Disk = "disk",
        /// In memory only.
        Memory = "memory",
    }
}

const OFF: &str = "off";

/// The port of FastAGI, which FreePBX's own FastAGI server has on 127.0.0.1.
pub const FREEPBX_FASTAGI_PORT: u16 = 4573;

/// The dialects over TCP: the key of each, and its default port. `None`: off by default.
const DIALECTS: &[(DialectLabel, &str, Option<u16>)] = &[
    (DialectLabel::Line, "line", Some(4571)),
    (DialectLabel::FastAgi, "fastagi", Some(FREEPBX_FASTAGI_PORT)),
    (DialectLabel::FreeSwitch, "freeswitch", None),
    (DialectLabel::JsonRpc, "kamailio", None),
];

/// Reads `queuewarden.toml`. `None`: it cannot be read or is not TOML. After any other problem the settings are still
/// returned, with defaults for the keys that are wrong.
pub(super) fn read(
    folder: &Path,
    problems: &RefCell<Problems>,
    warnings: &mut Problems,
    fingerprint: &Fingerprint,
) -> Option<ProcessFile> {
    let source = match Source::read(&folder.join("queuewarden.toml"), TOML_FILE_BYTES_MAX) {
        Ok(source) => source,
        Err(problem) => {
            let help = "a configuration folder has queuewarden.toml, organizations/ and models/; name it with --config";
            problems.borrow_mut().add(problem.help(help));
            return None;
        }
    };
    fingerprint.add(&folder.join("queuewarden.toml"), source.text.as_bytes());
    read_from(&source, folder, problems, warnings)
}

/// Reads the text of `queuewarden.toml`; paths in it are relative to `folder`.
pub(super) fn read_from(
    source: &Source,
    folder: &Path,
    problems: &RefCell<Problems>,
    warnings: &mut Problems,
) -> Option<ProcessFile> {
    let table = source.parse(&mut problems.borrow_mut())?;
    let mut root = Section::root(source, &table, problems);
    let listen = read_listen(root.section("listen"), folder, warnings);
    let state = read_state(root.section("state"), folder);
    let audit = audit::read(root.section("audit"), folder, &state.folder);
    let (connections_max, drain_delay) = read_limits(root.section("limits"));
    let sessions_by_queue_max = read_sessions_by_queue_max(root.section("metrics"));
    let (mut evapi, mut asterisk_ami, mut freeswitch_esl, mut referenced) = (vec![], vec![], vec![], vec![]);
    if let Some(mut section) = root.section("connect") {
        evapi = read_evapi(&mut section, warnings);
        asterisk_ami = asterisk_ami::read(section.sections("asterisk_ami"), folder, warnings, &mut referenced);
        freeswitch_esl = freeswitch_esl::read(section.sections("freeswitch_esl"), folder, warnings, &mut referenced);
        let names = asterisk_ami.iter().map(|link| link.link.name.to_string());
        let names = names.chain(freeswitch_esl.iter().map(|link| link.link.name.to_string()));
        let mut names: Vec<String> = names.chain((0..evapi.len()).map(evapi_name)).collect();
        names.sort_unstable();
        for pair in names.windows(2).filter(|pair| pair.first() == pair.last()) {
            if let Some(name) = pair.first() {
                section.report(&section.span, format!("two links have the name `{name}`"));
            }
        }
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
        freeswitch_esl,
    };
    Some(ProcessFile { settings, referenced })
}

fn read_listen(section: Option<Section<'_>>, folder: &Path, warnings: &mut Problems) -> ListenSettings {
    const fn loopback(port: u16) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
    }
    let mut listen = ListenSettings {
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
    let line_has_token = listen.line_token.is_some();
    for (label, key, address) in &mut listen.dialects {
        let has_token = line_has_token && *label == DialectLabel::Line;
        let non_loopback = if has_token { NonLoopback::Allow } else { NonLoopback::Warn };
        *address = read_address(&mut section, key, *address, non_loopback, warnings);
    }
    let socket = |path: SpannedStr<'_>| (path.value != OFF).then(|| folder.join(path.value));
    listen.line_unix = section.string("line_unix").and_then(socket);
    let non_loopback = if listen.admin_token.is_some() { NonLoopback::Allow } else { NonLoopback::Refuse };
    listen.admin = read_address(&mut section, "admin", listen.admin, non_loopback, warnings);
    listen.admin_unix = section.string("admin_unix").and_then(socket);
    listen.admin_hosts = read_hosts(&mut section);
    section.finish();
    listen
}

/// What happens to an address that other machines can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NonLoopback {
    Allow,
    Warn,
    Refuse,
}

fn read_address(
    section: &mut Section<'_>,
    key: &'static str,
    default: Option<SocketAddr>,
    non_loopback: NonLoopback,
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
    if !address.ip().is_loopback() && non_loopback != NonLoopback::Allow {
        let message = format!("`{key}` listens on {address}, which other machines can reach");
        if non_loopback == NonLoopback::Refuse {
            let help = format!("set `{key}_token_file` to a file that contains a token, or listen on 127.0.0.1");
            section.report_with_help(&text.span, message, help);
            return None;
        }
        let help = "listen on 127.0.0.1, or configure a firewall that admits the PBX only";
        warnings.add(section.source.problem(text.span, message).help(help));
    }
    Some(address)
}

/// Reads host names, as they are in a `Host` header before the port.
fn read_hosts(section: &mut Section<'_>) -> Vec<Box<str>> {
    let mut hosts = vec![];
    for host in section.strings("admin_hosts") {
        let is_admitted = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if host.value.is_empty() || host.value.len() > 255 || !host.value.bytes().all(is_admitted) {
            let help = "a name in lower case, without a port, like \"pbx.example.org\"";
            section.report_with_help(&host.span, format!("`{}` is not a host name", host.value), help);
        } else if hosts.len() == ADMIN_HOSTS_MAX {
            section.report(&host.span, format!("`admin_hosts` may list at most {ADMIN_HOSTS_MAX} names"));
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
    let expected = SecretFile { kind: "the token file", bytes_max: TOKEN_BYTES_MAX, help: &help };
    expected.read(section, &path, folder, admits)
}

fn read_state(section: Option<Section<'_>>, folder: &Path) -> StateSettings {
    let mut state = StateSettings { store: StoreKind::Disk, folder: folder.join("state") };
    let Some(mut section) = section else { return state };
    section.document_values("store", StoreKind::ALL.iter().map(|store| store.name()));
    if let Some(store) = section.string("store") {
        if let Some(named) = StoreKind::named(store.value) {
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

/// Reads `[limits]`: the greatest number of connections, and how long a stop is announced before it begins.
fn read_limits(section: Option<Section<'_>>) -> (usize, Duration) {
    let Some(mut section) = section else { return (CONNECTIONS_DEFAULT, Duration::ZERO) };
    let connections = section.integer("connections_max", 1..=CONNECTIONS_MAX);
    let delay = section.integer("drain_delay_seconds", 0..=DRAIN_DELAY_SECONDS_MAX);
    section.finish();
    (connections.unwrap_or(CONNECTIONS_DEFAULT), Duration::from_secs(delay.unwrap_or(0)))
}

fn read_sessions_by_queue_max(section: Option<Section<'_>>) -> usize {
    let Some(mut section) = section else { return 0 };
    let queues = section.integer("sessions_by_queue_max", 0..=METRIC_QUEUES_MAX);
    section.finish();
    queues.and_then(|queues| usize::try_from(queues).ok()).unwrap_or(0)
}

/// The name of the link to the Kamailio at this position of `[connect] evapi`.
#[must_use]
pub fn evapi_name(position: usize) -> String {
    format!("evapi-{}", position + 1)
}

fn read_evapi(section: &mut Section<'_>, warnings: &mut Problems) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = vec![];
    for text in section.strings("evapi") {
        match text.value.parse::<SocketAddr>() {
            Ok(address) if addresses.contains(&address) => {
                section.report(&text.span, format!("`evapi` lists {address} twice"));
            }
            Ok(_) if addresses.len() == EVAPI_PEERS_MAX => {
                section.report(&text.span, format!("`evapi` may list at most {EVAPI_PEERS_MAX} addresses"));
            }
            Ok(address) => {
                if !address.ip().is_loopback() {
                    let message =
                        format!("`evapi` connects to {address}, on another machine, and evapi has no password");
                    let help = "connect to 127.0.0.1, or configure a firewall that admits this machine only";
                    warnings.add(section.source.problem(text.span.clone(), message).help(help));
                }
                addresses.push(address);
            }
            Err(_) => section.report(&text.span, "`evapi` must list addresses and ports, like \"127.0.0.1:8448\""),
        }
    }
    addresses
}
