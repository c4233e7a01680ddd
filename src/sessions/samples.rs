//! What the unit tests of the store's records and of the backup save.

use crate::sessions::linked_members::{Confirmation, LeavingMember, MemberNote, PbxStart};
use crate::sessions::record::{SavedSession, SavedSupervision};

/// A login session with every value that one can have.
pub(super) fn session() -> SavedSession<'static> {
    let confirmed = Some(Confirmation { link: "pbx-1".into(), start: Some(PbxStart("2026-11-28 04:40:00".into())) });
    SavedSession {
        queue: "support",
        ground: "supervisor",
        paused: true,
        pause_reason: Some("lunch"),
        since: 1_700_000_000,
        by: Some("dana"),
        ends: Some(1_700_003_600_000),
        number: "600",
        origin: "elsewhere",
        note: MemberNote { confirmed, is_pause_seen: true, penalty: 3 },
    }
}

/// A member that an ended session left behind.
pub(super) fn leaving(extension: &str) -> LeavingMember {
    LeavingMember { queue: "601".into(), extension: extension.into(), waits_for: vec!["pbx-1".into()] }
}

/// A supervision of a call.
pub(super) fn supervision() -> SavedSupervision<'static> {
    SavedSupervision {
        target: Some("bob"),
        queue: Some("support"),
        call: Some("c-1"),
        channel: Some("17.1"),
        mode: "listen",
        since: 1_700_000_000,
        ends: 1_700_014_400_000,
        action: "call.listen",
        attributes: vec![("conversation", "agent")],
    }
}
