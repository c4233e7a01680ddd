//! Reads the change feed of one organization and queues the members that its ended login sessions leave behind.
//!
//! Only an end by expiry, idle time, shift, revocation or removal leaves a member behind; a phone that logs out removes
//! its own. A link looks up the login sessions before it acts, so a change that is read twice or late does no harm. A
//! change that is never read leaves a member in the queue; it is logged as an error.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::gate::change_feed::{Cause, Happening, NumberedChange};
use crate::limits::WATCH_CHANGES_PER_WRITE_MAX;
use crate::links::ami::{AmiLinks, QueueMember};

/// Interval at which an organization that a reload removed is looked up again.
const ABSENT_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the change feed of `organization` from its oldest change until `stop`. Returns at once if there is no such
/// organization; the configuration admits only links whose organization exists.
pub(crate) async fn follow(gate: Arc<Gate>, links: Arc<AmiLinks>, organization: Box<str>, stop: CancellationToken) {
    let Some(mut change_feed) = gate.change_feed(&organization) else { return };
    let mut last_read = change_feed.before_oldest();
    while !stop.is_cancelled() {
        // A reload that removes the organization ends all its sessions, so its feed is still read. Another organization
        // may take over the feed later; then only changes with the cause `Removal` are believed.
        let current = gate.change_feed(&organization);
        if let Some(current) = current.filter(|current| !std::ptr::eq(*current, change_feed)) {
            change_feed = current;
            last_read = change_feed.before_oldest();
        }
        let mut latest = change_feed.watch();
        latest.mark_unchanged();
        match change_feed.after(last_read, WATCH_CHANGES_PER_WRITE_MAX) {
            Ok(changes) if changes.is_empty() => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = latest.changed() => {}
                    () = tokio::time::sleep(ABSENT_INTERVAL), if current.is_none() => {}
                }
            }
            Ok(changes) => {
                for change in changes {
                    last_read = change.revision;
                    if (current.is_some() || change.change.cause == Cause::Removal)
                        && let Some(member) = member_left_behind(&organization, &change)
                    {
                        links.remove(&member);
                    }
                }
            }
            Err(_) => {
                tracing::error!(
                    %organization,
                    "sessions ended faster than they were passed to Asterisk: compare its queue members with `queuewarden sessions`"
                );
                last_read = change_feed.before_oldest();
            }
        }
    }
}

/// The member that the change leaves behind in Asterisk. `None`: the change leaves none.
fn member_left_behind(organization: &str, numbered: &NumberedChange) -> Option<QueueMember> {
    let change = &numbered.change;
    let without_a_phone =
        matches!(change.cause, Cause::Expiry | Cause::Idle | Cause::Shift | Cause::Revocation | Cause::Removal);
    let queue = change.queue.as_deref()?;
    (*change.organization == *organization && change.happening == Happening::SessionEnded && without_a_phone)
        .then(|| QueueMember::new(organization, &change.user, queue))
}
