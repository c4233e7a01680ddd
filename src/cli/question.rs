//! The question of `queuewarden ask` and `queuewarden explain`: organization, actor, and the keys of the line dialect.

use clap::{Args, Subcommand};

use crate::decision::WireError;
use crate::dialect::fields::{Fields, Verb};
use crate::event::{Event, Key, KeySet};

/// The arguments of a question.
#[derive(Debug, Args)]
pub(super) struct QuestionArguments {
    /// The organization.
    #[arg(long, value_name = "NAME")]
    pub(super) org: String,
    /// Who asks: an extension or a user id.
    #[arg(long, value_name = "USER")]
    actor: String,
    #[command(subcommand)]
    request: RequestArguments,
}

#[derive(Debug, Subcommand)]
enum RequestArguments {
    /// Digits dialed on a phone: `dial '*13600'`.
    Dial {
        /// The digits.
        digits: String,
        #[command(flatten)]
        call: CallArguments,
        /// Further keys of the line dialect: queue=…, call=…, via=….
        #[arg(value_name = "KEY=VALUE")]
        more: Vec<String>,
    },
    /// A named action: `do call.whisper --target 1001 --queue 601`.
    #[command(alias = "may")]
    Do {
        /// The action.
        action: String,
        #[command(flatten)]
        call: CallArguments,
        /// The user that the action is applied to: an extension or a user id.
        #[arg(long, value_name = "USER")]
        target: Option<String>,
        /// How long a supervisor's login of somebody else lasts.
        #[arg(long = "for", value_name = "SECONDS")]
        lease: Option<String>,
        /// Further keys of the line dialect: from=…, group=…, conversation=….
        #[arg(value_name = "KEY=VALUE")]
        more: Vec<String>,
    },
}

/// The keys that a PBX knows of the call of a question.
#[derive(Debug, Args)]
struct CallArguments {
    /// The queue: a number or an id.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// The call.
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// By this channel: phone or dashboard.
    #[arg(long, value_name = "CHANNEL")]
    via: Option<String>,
}

/// A question as pairs `key=value` of the line dialect.
#[derive(Debug)]
pub(super) struct QuestionPairs {
    verb: Verb,
    pairs: Vec<String>,
}

impl QuestionArguments {
    /// Whether the question is about dialed digits and not about a named action.
    #[cfg(feature = "cli")]
    pub(super) const fn is_dialed(&self) -> bool {
        matches!(self.request, RequestArguments::Dial { .. })
    }

    /// The pairs of the question, in the order of the command line's help.
    pub(super) fn pairs(&self) -> QuestionPairs {
        let option = |key: Key, value: &Option<String>| Some(format!("{}={}", key.name(), value.as_ref()?));
        let (verb, request, call, options, more) = match &self.request {
            RequestArguments::Dial { digits, call, more } => (Verb::Dial, (Key::Digits, digits), call, vec![], more),
            RequestArguments::Do { action, call, target, lease, more } => {
                let options = vec![option(Key::Target, target), option(Key::For, lease)];
                (Verb::May, (Key::Action, action), call, options, more)
            }
        };
        let required = [(Key::Organization, &self.org), (Key::Actor, &self.actor), request];
        let required = required.into_iter().map(|(key, value)| format!("{}={value}", key.name()));
        let of_call = [option(Key::Queue, &call.queue), option(Key::Call, &call.call), option(Key::Via, &call.via)];
        let optional = options.into_iter().chain(of_call).flatten();
        QuestionPairs { verb, pairs: required.chain(optional).chain(more.iter().cloned()).collect() }
    }
}

impl QuestionPairs {
    /// The event that the pairs make.
    ///
    /// # Errors
    ///
    /// The first pair that the line dialect does not take, or the first key that is missing.
    pub(super) fn event(&self) -> Result<Event<'_>, WireError> {
        let mut fields = Fields::new(self.verb);
        for pair in &self.pairs {
            fields.set_pair(pair.as_bytes(), KeySet::EMPTY)?;
        }
        fields.into_event()
    }

    /// Every key with its value. A word without `=` is a key with an empty value.
    #[cfg(feature = "cli")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}
