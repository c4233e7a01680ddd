//! The keys of the replies of the line dialect, for its reference.

use crate::dialect::AnswerField;

/// The keys of replies. A decision and an error carry theirs in this order.
pub const REPLY_KEYS: &[AnswerField] = &[
    reply_key(
        "action",
        "allow, deny",
        "The action that was decided; for a toggle, the login or logout that it became. Missing if none was found.",
    ),
    reply_key("queue", "allow, deny, event", "The number of the queue that the question names."),
    reply_key(
        "queues",
        "allow, deny",
        "The numbers of all queues that a question without a queue is about, separated by `,`.",
    ),
    reply_key("reason", "allow, deny, error, event", "The reason code."),
    reply_key("policy", "allow, deny", "The revision of the policy that decided."),
    reply_key("mode", "allow and event of a supervision", "`listen`, `whisper` or `barge`."),
    reply_key("target", "allow and event of a supervision", "The extension of the supervised user."),
    reply_key("asterisk", "allow of a supervision", "The options for `ChanSpy`."),
    reply_key(
        "freeswitch",
        "allow of a supervision",
        "The channel variables for `eavesdrop`, as `name:value`, separated by `,`.",
    ),
    reply_key("key", "error", "The key that is wrong."),
    reply_key("revision", "event", "The number of the event; the next event has the next number."),
    reply_key("change", "event", "What began or ended."),
    reply_key("user", "event", "The extension of the user who is logged in, or of the supervisor."),
];

const fn reply_key(name: &'static str, carried_by: &'static str, description: &'static str) -> AnswerField {
    AnswerField { name, carried_by, description }
}
