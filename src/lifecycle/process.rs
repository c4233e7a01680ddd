//! Settings of the process itself: the limit of open descriptors and the panic hook.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::process::ProcessSettings;
use crate::sidecar::Sidecar;

/// Descriptors that the process needs besides those of its connections.
const OTHER_DESCRIPTORS: u64 = 128;

/// Raises the soft limit of open descriptors to the hard limit: most systems set the soft one to 1,024, and every
/// connection needs a descriptor.
pub(super) fn raise_descriptor_limit(settings: &ProcessSettings) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("the limit of open descriptors cannot be raised");
    }
    let needed = settings.connections_max as u64 + OTHER_DESCRIPTORS;
    if let Some(available) = getrlimit(Resource::Nofile).current.filter(|&available| available < needed) {
        tracing::warn!(available, needed, "fewer descriptors than `connections_max` needs: raise LimitNOFILE");
    }
}

/// Counts every panic of every thread in `panics_total`, and prints it as before.
pub(super) fn count_panics(sidecar: &Arc<Sidecar>) {
    let sidecar = Arc::downgrade(sidecar);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(sidecar) = sidecar.upgrade() {
            sidecar.metrics.panicked();
        }
        previous(panic);
    }));
}
