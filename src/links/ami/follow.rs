//! From the change_feed to the links: whoever's login session ended without a phone that dialed is removed from the queues
//! of the Asterisks of the organization.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::gate::change_feed::{Cause, Happening, NumberedChange};
use crate::limits::WATCH_CHANGES_PER_WRITE_MAX;
use crate::links::ami::Member;
use crate::sidecar::Sidecar;

/// Between two looks for an organization that a reload took away.
const ABSENT_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the change_feed of one organization, from what it holds, until `stop`. The link looks who is logged in before it
/// acts, so what is told twice, or late, does no harm; what is not told stays a member.
pub(crate) async fn follow(sidecar: Arc<Sidecar>, organization: Box<str>, stop: CancellationToken) {
    // The configuration names only organizations that are there.
    let Some(mut change_feed) = sidecar.gate.change_feed(&organization) else { return };
    let mut seen = change_feed.before_oldest();
    while !stop.is_cancelled() {
        // A reload that takes the organization away ends all its sessions: its change_feed is read on for that. Another
        // organization may have the place one day, but nothing of that is called a removal before it goes itself.
        let now = sidecar.gate.change_feed(&organization);
        if let Some(now) = now.filter(|now| !std::ptr::eq(*now, change_feed)) {
            change_feed = now;
            seen = change_feed.before_oldest();
        }
        let mut latest = change_feed.watch();
        latest.mark_unchanged();
        match change_feed.after(seen, WATCH_CHANGES_PER_WRITE_MAX) {
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
                    if (now.is_some() || entry.change.cause == Cause::Removal)
                        && let Some(member) = left_behind(&organization, &entry)
                    {
                        sidecar.asterisks.remove(&member);
                    }
                }
            }
            Err(_) => {
                tracing::error!(%organization, "sessions ended faster than Asterisk could be told: look at its queues");
                seen = change_feed.before_oldest();
            }
        }
    }
}

/// The member that a change leaves behind in Asterisk; a phone that logged out has removed its own.
fn left_behind(organization: &str, entry: &NumberedChange) -> Option<Member> {
    let change = &entry.change;
    let without_a_phone = matches!(change.cause, Cause::Expiry | Cause::Revocation | Cause::Removal);
    let queue = change.queue.as_deref()?;
    (*change.organization == *organization && change.happening == Happening::SessionEnded && without_a_phone)
        .then(|| Member::new(organization, &change.user, queue))
}
