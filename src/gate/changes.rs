//! Changes in the words of the organization, for the change_feed.

use crate::gate::change_feed::{Cause, Change, Happening};
use crate::policy::Organization;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::Altered;

/// What to tell of an altered session; nothing if it neither began nor ended.
pub(super) fn of_session(organization: &Organization, altered: &Altered, cause: Cause) -> Option<Change> {
    let happening = match (altered.before, altered.after) {
        (None, Some(_)) => Happening::SessionBegan,
        (Some(_), None) => Happening::SessionEnded,
        _ => return None,
    };
    let directory = &organization.directory;
    Some(Change {
        organization: organization.name.clone(),
        happening,
        user: directory.extension(altered.user).into(),
        queue: directory.queue(altered.queue).map(|queue| queue.number.clone()),
        target: None,
        mode: None,
        cause,
    })
}

/// What to tell of a supervision.
pub(super) fn of_supervision(organization: &Organization, of: &Supervision, cause: Cause, began: bool) -> Change {
    let directory = &organization.directory;
    Change {
        organization: organization.name.clone(),
        happening: if began { Happening::SupervisionBegan } else { Happening::SupervisionEnded },
        user: directory.extension(of.supervisor).into(),
        queue: of.queue.and_then(|queue| directory.queue(queue)).map(|queue| queue.number.clone()),
        target: of.target.map(|target| directory.extension(target).into()),
        mode: Some(of.mode),
        cause,
    }
}
