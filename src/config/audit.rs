//! `[audit]` of `queuewarden.toml`: the folder, rotation and retention of the audit log, and which lines are written.

use std::path::Path;

use crate::audit::AuditLogOptions;
use crate::audit::buffer::PlainAllows;
use crate::config::reader::Section;
use crate::limits::{
    AUDIT_PLAIN_ALLOWS_PER_SECOND_MAX, AUDIT_RETENTION_BYTES_MAX, AUDIT_RETENTION_SECONDS_MAX,
    AUDIT_ROTATION_BYTES_MAX, AUDIT_ROTATION_SECONDS_MAX, AUDIT_SAMPLE_MAX,
};

/// How the audit log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The folder of the log, and when files are rotated and deleted.
    pub log: AuditLogOptions,
    /// Which allowed questions that change nothing are written.
    pub plain_allows: PlainAllows,
}

/// Least value of `rotation_max_bytes`: a file has room for a few lines.
const ROTATION_BYTES_MIN: u64 = 4_096;

impl AuditSettings {
    /// The defaults, with the log in this folder.
    fn in_folder(folder: &Path) -> Self {
        let log = AuditLogOptions {
            folder: folder.to_owned(),
            rotation_max_bytes: 64 * 1024 * 1024,
            rotation_max_seconds: 24 * 3_600,
            retention_max_seconds: 90 * 24 * 3_600,
            retention_max_bytes: 10 * 1024 * 1024 * 1024,
        };
        Self { log, plain_allows: PlainAllows { one_in: 1, per_second_max: 1_000 } }
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
    let AuditSettings { log, plain_allows } = &mut audit;
    for (key, value, range) in [
        ("rotation_max_bytes", &mut log.rotation_max_bytes, ROTATION_BYTES_MIN..=AUDIT_ROTATION_BYTES_MAX),
        ("rotation_max_seconds", &mut log.rotation_max_seconds, 1..=AUDIT_ROTATION_SECONDS_MAX),
        ("retention_max_seconds", &mut log.retention_max_seconds, 1..=AUDIT_RETENTION_SECONDS_MAX),
        ("retention_max_bytes", &mut log.retention_max_bytes, 0..=AUDIT_RETENTION_BYTES_MAX),
        ("plain_allows_one_in", &mut plain_allows.one_in, 1..=AUDIT_SAMPLE_MAX),
        ("plain_allows_per_second", &mut plain_allows.per_second_max, 0..=AUDIT_PLAIN_ALLOWS_PER_SECOND_MAX),
    ] {
        if let Some(given) = section.integer(key, range) {
            *value = given;
        }
    }
    section.finish();
    enabled.then_some(audit)
}
