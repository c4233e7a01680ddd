//! From the journal to the links: whoever's login session ended without a phone that dialed is removed from the queues
//! of the Asterisks of the organization.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ami::Member;
use crate::gate::journal::{Cause, Entry, Happening};
use crate::limits::WATCH_NOTICES_PER_WRITE_MAX;
use crate::server::House;

/// Between two looks for an organization that a reload took away.
const ABSENT_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the journal of one organization, from what it holds, until `stop`. The link looks who is logged in before it
/// acts, so what is told twice, or late, does no harm; what is not told stays a member.
pub(super) async fn follow(house: Arc<House>, organization: Box<str>, stop: CancellationToken) {
    // The configuration names only organizations that are there.
    let Some(mut journal) = house.gate.journal(&organization) else { return };
    let mut seen = journal.before_oldest();
    while !stop.is_cancelled() {
        // A reload that takes the organization away ends all its sessions: its journal is read on for that. Another
        // organization may have the place one day, but nothing of that is called a removal before it goes itself.
        let now = house.gate.journal(&organization);
        if let Some(now) = now.filter(|now| !std::ptr::eq(*now, journal)) {
            journal = now;
            seen = journal.before_oldest();
        }
        let mut latest = journal.watch();
        latest.mark_unchanged();
        match journal.after(seen, WATCH_NOTICES_PER_WRITE_MAX) {
            Ok(entries) if entries.is_empty() => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = latest.changed() => {}
                    () = tokio::time::sleep(ABSENT_INTERVAL), if now.is_none() => {}
                }
            }
            Ok(entries) => {
                for entry in entries {
                    seen = entry.revision;
                    if (now.is_some() || entry.notice.cause == Cause::Removal)
                        && let Some(member) = left_behind(&organization, &entry)
                    {
                        house.asterisks.remove(&member);
                    }
                }
            }
            Err(_) => {
                tracing::error!(%organization, "sessions ended faster than Asterisk could be told: look at its queues");
                seen = journal.before_oldest();
            }
        }
    }
}

/// The member that a change leaves behind in Asterisk; a phone that logged out has removed its own.
fn left_behind(organization: &str, entry: &Entry) -> Option<Member> {
    let notice = &entry.notice;
    let without_a_phone = matches!(notice.cause, Cause::Expiry | Cause::Revocation | Cause::Removal);
    let queue = notice.queue.as_deref()?;
    (*notice.organization == *organization && notice.happening == Happening::SessionEnded && without_a_phone)
        .then(|| Member::new(organization, &notice.user, queue))
}
