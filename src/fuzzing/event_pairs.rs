//! An event written out as pairs of key and value, to compare it with the bytes that it was read from.

use std::iter::once;

use crate::event::{Event, Intent, Key, Request};
use crate::telephony::Via;

/// The verb that asks for the event.
pub(super) const fn verb_of(event: &Event<'_>) -> &'static str {
    match (event.intent, event.request) {
        (Intent::Do, Request::Dial(_)) => "dial",
        (Intent::Do, Request::Action(_)) => "do",
        (Intent::May, _) => "may",
    }
}

/// The keys and values of an event, sorted. Without `via=phone`, which is the default.
pub(super) fn pairs_of(event: &Event<'_>) -> Vec<String> {
    let (request, name) = match event.request {
        Request::Action(action) => (Key::Action, action.as_str()),
        Request::Dial(digits) => (Key::Digits, digits.as_str()),
    };
    let mut pairs =
        vec![(Key::Organization, event.organization.as_str()), (Key::Actor, event.actor.as_str()), (request, name)];
    let names: Vec<_> = event.names().collect();
    pairs.extend(names.iter().map(|(key, name)| (*key, name.as_str())));
    let closed = event.attributes.iter().chain(once((Key::Via, event.via.name())));
    let lease = event.lease_seconds.map(|seconds| format!("for={seconds}"));
    let written = |(key, value): (Key, &str)| format!("{}={value}", key.name());
    sorted(pairs.into_iter().map(written).chain(closed.map(written)).chain(lease))
}

/// The pairs, sorted and without `via=phone`.
pub(super) fn sorted(pairs: impl Iterator<Item = String>) -> Vec<String> {
    let default = format!("via={}", Via::Phone.name());
    let mut pairs: Vec<String> = pairs.filter(|pair| *pair != default).collect();
    pairs.sort_unstable();
    pairs
}
