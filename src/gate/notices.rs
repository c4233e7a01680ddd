//! Changes in the words of the organization, for the journal.

use crate::gate::journal::{Cause, Happening, Notice};
use crate::policy::Organization;
use crate::sessions::supervisions::Supervision;
use crate::sessions::table::Altered;

/// What to tell of an altered session; nothing if it neither began nor ended.
pub(super) fn of_session(organization: &Organization, altered: &Altered, cause: Cause) -> Option<Notice> {
    let happening = match (altered.before, altered.after) {
        (None, Some(_)) => Happening::SessionBegan,
        (Some(_), None) => Happening::SessionEnded,
        _ => return None,
    };
    let directory = &organization.directory;
    Some(Notice {
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
pub(super) fn of_supervision(organization: &Organization, of: &Supervision, cause: Cause, began: bool) -> Notice {
    let directory = &organization.directory;
    Notice {
        organization: organization.name.clone(),
        happening: if began { Happening::SupervisionBegan } else { Happening::SupervisionEnded },
        user: directory.extension(of.supervisor).into(),
        queue: of.queue.and_then(|queue| directory.queue(queue)).map(|queue| queue.number.clone()),
        target: of.target.map(|target| directory.extension(target).into()),
        mode: Some(of.mode),
        cause,
    }
}
