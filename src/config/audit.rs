//! `[audit]` of `queuewarden.toml`: the folder, rotation and retention of the audit log, and which lines are written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit::buffer::PlainAllows;
use crate::audit::{AuditLogOptions, Retention};
use crate::config::reader::Section;
use crate::limits::{
    AUDIT_PLAIN_ALLOWS_PER_SECOND_MAX, AUDIT_RETENTION_BYTES_MAX, AUDIT_RETENTION_SECONDS_MAX,
    AUDIT_ROTATION_BYTES_MAX, AUDIT_ROTATION_SECONDS_MAX, AUDIT_SAMPLE_MAX, WITNESS_INTERVAL_SECONDS_MAX,
};

/// How the audit log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The folder of the log, and when files are rotated and deleted.
    pub log: AuditLogOptions,
    /// Which allowed questions that change nothing are written.
    pub plain_allows: PlainAllows,
    /// Who is told the last lines.
    pub witness: WitnessSettings,
}

/// Who is told the last lines of the audit log, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessSettings {
    /// Where the lines go. `None`: nobody is told.
    pub target: Option<WitnessTarget>,
    /// Time between two lines.
    pub interval: Duration,
}

/// Where the lines for a witness go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessTarget {
    /// A program and its arguments: it gets a line on its standard input.
    Exec(Vec<String>),
    /// A syslog daemon.
    Syslog(SyslogAddress),
    /// A file, to which a line is appended.
    File(PathBuf),
}

/// A syslog daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// Its socket on this machine.
    Socket(PathBuf),
    /// A host and its UDP port.
    Host(String),
}

impl WitnessTarget {
    /// Reads `exec:COMMAND`, `syslog:PATH`, `syslog:HOST:PORT` or `file:PATH`; paths are relative to `folder`.
    fn parse(text: &str, folder: &Path) -> Option<Self> {
        let (kind, value) = text.split_once(':').filter(|(_, value)| !value.trim().is_empty())?;
        match kind {
            "exec" => Some(Self::Exec(value.split_ascii_whitespace().map(str::to_owned).collect())),
            "file" => Some(Self::File(folder.join(value))),
            "syslog" if value.starts_with('/') => Some(Self::Syslog(SyslogAddress::Socket(value.into()))),
            "syslog" => {
                let (host, port) = value.rsplit_once(':')?;
                let is_valid = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
                is_valid.then(|| Self::Syslog(SyslogAddress::Host(value.to_owned())))
            }
            _ => None,
        }
    }
}

/// Least value of `rotation_max_bytes`: a file has room for a few lines.
const ROTATION_BYTES_MIN: u64 = 4_096;

/// How long the files of a chain stay by default: 90 days, 10 GiB.
const RETENTION_DEFAULT: Retention = Retention { max_seconds: 90 * 24 * 3_600, max_bytes: 10 * 1024 * 1024 * 1024 };

impl AuditSettings {
    /// The defaults, with the log in this folder.
    fn in_folder(folder: &Path) -> Self {
        let log = AuditLogOptions {
            folder: folder.to_owned(),
            rotation_max_bytes: 64 * 1024 * 1024,
            rotation_max_seconds: 24 * 3_600,
            decisions: RETENTION_DEFAULT,
            record: RETENTION_DEFAULT,
        };
        let witness = WitnessSettings { target: None, interval: Duration::from_secs(60) };
        Self { log, plain_allows: PlainAllows { one_in: 1, per_second_max: 1_000 }, witness }
    }
}

/// Reads the table. `None`: the log is off. `state` is the state folder, `folder` the configuration folder.
pub(super) fn read(section: Option<Section<'_>>, folder: &Path, state: &Path) -> Option<AuditSettings> {
    let mut audit = AuditSettings::in_folder(&state.join("audit"));
    let Some(mut section) = section else { return Some(audit) };
    let enabled = section.boolean("enabled").unwrap_or(true);
    if let Some(path) = section.string("folder") {
        audit.log.folder = folder.join(path.value);
    }
    read_witness(&mut section, folder, &mut audit.witness);
    let AuditSettings { log, plain_allows, .. } = &mut audit;
    for (key, value, range) in [
        ("rotation_max_bytes", &mut log.rotation_max_bytes, ROTATION_BYTES_MIN..=AUDIT_ROTATION_BYTES_MAX),
        ("rotation_max_seconds", &mut log.rotation_max_seconds, 1..=AUDIT_ROTATION_SECONDS_MAX),
        ("retention_max_seconds", &mut log.decisions.max_seconds, 1..=AUDIT_RETENTION_SECONDS_MAX),
        ("retention_max_bytes", &mut log.decisions.max_bytes, 0..=AUDIT_RETENTION_BYTES_MAX),
        ("plain_allows_one_in", &mut plain_allows.one_in, 1..=AUDIT_SAMPLE_MAX),
        ("plain_allows_per_second", &mut plain_allows.per_second_max, 0..=AUDIT_PLAIN_ALLOWS_PER_SECOND_MAX),
    ] {
        if let Some(given) = section.integer(key, range) {
            *value = given;
        }
    }
    // Who shortened the retention, for example by law, does not keep who listened to whom for longer.
    log.record = log.decisions;
    for (key, value, range) in [
        ("record_retention_max_seconds", &mut log.record.max_seconds, 1..=AUDIT_RETENTION_SECONDS_MAX),
        ("record_retention_max_bytes", &mut log.record.max_bytes, 0..=AUDIT_RETENTION_BYTES_MAX),
    ] {
        if let Some(given) = section.integer(key, range) {
            *value = given;
        }
    }
    section.finish();
    enabled.then_some(audit)
}

/// Reads who is told the last lines, and how often.
fn read_witness(section: &mut Section<'_>, folder: &Path, witness: &mut WitnessSettings) {
    if let Some(seconds) = section.integer("witness_interval_seconds", 1..=WITNESS_INTERVAL_SECONDS_MAX) {
        witness.interval = Duration::from_secs(seconds);
    }
    let Some(text) = section.string("witness") else { return };
    witness.target = WitnessTarget::parse(text.value, folder);
    if witness.target.is_none() {
        section.report_with_help(
            &text.span,
            format!("`witness` must say how and to whom, not \"{}\"", text.value),
            "`exec:/usr/local/bin/tell`, `syslog:192.0.2.7:514`, `syslog:/dev/log`, or `file:/mnt/elsewhere/witness`",
        );
    }
}
