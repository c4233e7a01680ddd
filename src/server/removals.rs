//! From the journal to the links: whoever's login session ended without a phone that dialed is removed from the queues
//! of the Asterisks of the organization.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ami::Member;
use crate::gate::journal::{Cause, Entry, Happening, Journal};
use crate::limits::WATCH_NOTICES_PER_WRITE_MAX;
use crate::server::House;

/// Between two looks for an organization that the policy does not have yet.
const ABSENT_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the journal of one organization, from the moment of this call, until `stop`.
pub(super) fn follow(
    house: Arc<House>,
    organization: Box<str>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let seen = house.gate.journal(&organization).map(Journal::last);
    follow_from(seen, house, organization, stop)
}

async fn follow_from(mut seen: Option<u64>, house: Arc<House>, organization: Box<str>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Some(journal) = house.gate.journal(&organization) else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ABSENT_INTERVAL) => continue,
            }
        };
        let mut latest = journal.watch();
        latest.mark_unchanged();
        let from = seen.unwrap_or_else(|| journal.last());
        seen = Some(match journal.after(from, WATCH_NOTICES_PER_WRITE_MAX) {
            Ok(entries) if entries.is_empty() => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = latest.changed() => from,
                }
            }
            Ok(entries) => {
                for member in entries.iter().filter_map(|entry| left_behind(&organization, entry)) {
                    house.asterisks.remove(&member);
                }
                entries.last().map_or(from, |entry| entry.revision)
            }
            Err(_) => {
                tracing::error!(%organization, "sessions ended faster than Asterisk could be told: look at its queues");
                journal.last()
            }
        });
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
