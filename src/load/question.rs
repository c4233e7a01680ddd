//! One question of the load generator, before a dialect writes it.

use crate::dialect::fields::{Fields, Verb};
use crate::event::{Event, Intent, Key};
use crate::load::terms::{ONCE_MARK, QuestionTerms, UNTIL_MARK};

/// One question: who asks for what in which organization.
#[derive(Clone, Debug)]
pub(super) struct LoadQuestion {
    /// Whether an allowed action is carried out.
    pub(super) intent: Intent,
    /// The organization's name.
    pub(super) organization: String,
    /// The actor's extension.
    pub(super) actor: String,
    pub(super) request: LoadRequest,
    /// A queue number. `None`: no queue is given.
    pub(super) queue: Option<String>,
    /// The target's extension. `None`: no target is given.
    pub(super) target: Option<String>,
    /// The keys that are new each time the question is sent.
    pub(super) terms: QuestionTerms,
}

/// The action of a question.
#[derive(Clone, Debug)]
pub(super) enum LoadRequest {
    /// The name of an action.
    Action(&'static str),
    /// Dialed digits.
    Dial(String),
}

impl LoadQuestion {
    /// The verb of the dialects. Dialed digits have one verb, whatever the intent.
    pub(super) const fn verb(&self) -> Verb {
        match (&self.request, self.intent) {
            (LoadRequest::Dial(_), _) => Verb::Dial,
            (LoadRequest::Action(_), Intent::Do) => Verb::Do,
            (LoadRequest::Action(_), Intent::May) => Verb::May,
        }
    }

    /// The keys and values beside organization and actor.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Key, &str)> {
        let request = match &self.request {
            LoadRequest::Dial(digits) => (Key::Digits, digits.as_str()),
            LoadRequest::Action(action) => (Key::Action, *action),
        };
        let optional = [
            (Key::Queue, self.queue.as_deref()),
            (Key::Target, self.target.as_deref()),
            (Key::Until, self.terms.within_ms.map(|_| UNTIL_MARK)),
            (Key::Once, self.terms.once.then_some(ONCE_MARK)),
        ];
        std::iter::once(request).chain(optional.into_iter().filter_map(|(key, value)| Some((key, value?))))
    }

    /// All keys and values.
    pub(super) fn all_keys(&self) -> impl Iterator<Item = (Key, &str)> {
        [(Key::Organization, self.organization.as_str()), (Key::Actor, self.actor.as_str())]
            .into_iter()
            .chain(self.keys())
    }

    /// The question as an event that changes nothing. `None`: a name of the configuration cannot be sent.
    pub(super) fn event(&self) -> Option<Event<'_>> {
        let event = Fields::event_of(self.verb(), self.all_keys()).ok()?;
        Some(Event { intent: Intent::May, ..event })
    }
}
