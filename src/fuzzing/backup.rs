//! Fuzz target of `queuewarden restore`: the input is the file of a backup.

use std::collections::BTreeSet;

use crate::config;
use crate::fuzzing::folder::{ConfigFolder, GOTO, VOXIMPLANT};
use crate::gate::backup::{RestoreMode, RestoreReport};
use crate::gate::{Counts, Gate, OperatorName};
use crate::policy::Policy;
use crate::sessions::backup::{Backup, BackupError, BackupWriter, sealed};
use crate::sessions::record::SavedUser;
use crate::telephony::{Moment, Token, UnixMillis, is_number};

/// The time of every restore.
const NOW: Moment = Moment { wall: UnixMillis(1_800_000_000_000), uptime_ms: 1_000 };

/// Who restores.
const OPERATOR: OperatorName<'_> = OperatorName { peer: "fuzzer", by: "operator:fuzzer" };

thread_local! {
    /// The policy of the shipped configuration.
    static POLICY: Policy = {
        let folder = ConfigFolder::new(VOXIMPLANT.iter().chain(GOTO));
        let loaded = config::load(&folder.path, &Policy::default());
        loaded.unwrap_or_else(|problems| panic!("the shipped configuration has problems: {problems}")).policy
    };
}

/// Checks that a backup which is read is read again as it is written again, that it brings no text to a PBX but
/// numbers, words and ids, and that a restore counts each login session once and finds nothing to do a second time.
/// Of an input whose last line does not fit, the rest is read with the line that fits: the hash hides it otherwise.
pub fn backup_file(data: &[u8]) {
    let read = Backup::read(data);
    if let Ok(backup) = &read {
        check(backup);
    }
    let again = Backup::read(&sealed(data.to_vec()));
    match &again {
        Ok(backup) => check(backup),
        Err(BackupError::Damaged(what)) => assert!(!data.ends_with(b"\n"), "{what}: the last line fits"),
        Err(_) => {}
    }
}

fn check(backup: &Backup) {
    let organizations: BTreeSet<&str> = backup.header.organizations.iter().map(String::as_str).collect();
    for user in backup.users() {
        assert!(organizations.contains(user.organization), "{} is not in the header", user.organization);
        check_texts(&user);
    }
    let written = Backup::read(&written(backup)).expect("a backup that was written is read");
    assert_eq!(written.users().collect::<Vec<_>>(), backup.users().collect::<Vec<_>>());
    check_restore(backup);
}

/// Checks what a link would send to a PBX.
fn check_texts(user: &SavedUser<'_>) {
    let is_name = |name: &str| name.is_empty() || is_number(name);
    assert!(is_name(user.extension), "{}", user.extension);
    for session in &user.sessions {
        assert!(is_name(session.number), "{}", session.number);
        assert!(session.pause_reason.is_none_or(|reason| Token::parse(reason).is_some()));
    }
    for member in &user.leaving {
        assert!(is_number(&member.queue) && is_number(&member.extension), "{member:?}");
    }
    for channel in user.supervisions.iter().filter_map(|supervision| supervision.channel) {
        assert!(Token::parse_call(channel).is_some(), "{channel}");
    }
}

fn written(backup: &Backup) -> Vec<u8> {
    let mut writer = BackupWriter::new(backup.header.organizations.clone(), backup.unix_ms);
    for user in backup.users() {
        for session in &user.sessions {
            writer.session(user.organization, user.user, user.extension, session);
        }
        for member in &user.leaving {
            writer.leaving(user.organization, user.user, member);
        }
        for supervision in &user.supervisions {
            writer.supervision(user.organization, user.user, supervision);
        }
    }
    writer.finish().expect("it is not longer than it was")
}

/// Restores the backup into an empty sidecar, and once more.
fn check_restore(backup: &Backup) {
    let gate = Gate::default();
    let _before = POLICY.with(|policy| gate.publish(policy.clone()));
    let restore = |mode| gate.backups().restore(backup, mode, OPERATOR, NOW).map(|(report, _)| report);
    let first = match restore(RestoreMode::IntoEmpty) {
        Ok(report) => report,
        // It is of other organizations.
        Err(error) => return assert_eq!(gate.counts(), Counts::default(), "{error}"),
    };
    assert!(first.sessions + first.gone <= backup.sessions, "{first:?}");
    assert!(first.supervisions <= backup.supervisions && first.leaving <= backup.leaving + first.sessions);
    let counts = gate.counts();
    assert_eq!(
        counts.assigned + counts.unassigned + counts.supervisor,
        first.sessions,
        "each login session is counted once"
    );
    let second = restore(RestoreMode::Replace).expect("it was restored before");
    let expected = RestoreReport { began: 0, leaving: 0, supervisions: 0, ..first };
    assert_eq!(second, expected, "nothing is left to do");
    let (bytes, _) = gate.backups().write(OPERATOR, NOW).expect("it is not longer than it was");
    let saved = Backup::read(&bytes).expect("a backup of a gate is read");
    assert_eq!(saved.sessions, first.sessions, "a backup has every login session");
}
