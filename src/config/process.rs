//! `queuewarden.toml`: the addresses that the process listens on and connects to, its state folder, and its limits.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::access::AccessTable;
use crate::config::asterisk_ami::{self, AmiSettings};
use crate::config::audit::{self, AuditSettings};
use crate::config::fingerprint::Fingerprint;
use crate::config::freeswitch_esl::{self, EslSettings};
use crate::config::links::ReferencedOrganization;
use crate::config::listen;
pub use crate::config::listen::{FREEPBX_FASTAGI_PORT, FurtherListener, ListenSettings};
use crate::config::peers::{self, ReadPeers};
use crate::config::problem::Problems;
use crate::config::reader::{Section, Source};
pub use crate::config::secret::Secret;
use crate::limits::{
    CONNECTIONS_DEFAULT, CONNECTIONS_MAX, DRAIN_DELAY_SECONDS_MAX, EVAPI_PEERS_MAX, METRIC_QUEUES_MAX,
    TOML_FILE_BYTES_MAX,
};
use crate::telephony::closed_list;

/// The settings of the process.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// The listeners.
    pub listen: ListenSettings,
    /// Who may connect to them.
    pub access: Arc<AccessTable>,
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
    /// The organizations that links name.
    pub(super) referenced: Vec<ReferencedOrganization>,
    /// The organizations that entries of `[[peers]]` name.
    pub(super) peer_organizations: Vec<ReferencedOrganization>,
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
    let mut listen = listen::read(root.section("listen"), folder);
    let ReadPeers { table, referenced: peer_organizations } = peers::read(&mut root, &mut listen, folder);
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
        listen: listen.settings,
        access: Arc::new(table),
        state,
        audit,
        connections_max,
        sessions_by_queue_max,
        drain_delay,
        evapi,
        asterisk_ami,
        freeswitch_esl,
    };
    Some(ProcessFile { settings, referenced, peer_organizations })
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
