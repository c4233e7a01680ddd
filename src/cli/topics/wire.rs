//! The line dialect, the keys that every dialect shares, the variables of answers, and the admin listener.

use crate::api::ROUTES;
use crate::cli::topics::{Table, code};
use crate::dialect::fields::{REQUEST_KEYS, VERBS};
use crate::dialect::line::REPLY_KEYS;
use crate::dialect::{AnswerField, fastagi, freeswitch};
use crate::event::{ATTRIBUTE_VALUES, Key};

/// The grammar of the line dialect.
pub(super) const GRAMMAR: &str = "\
The line dialect: ASCII text over TCP or a Unix socket, one request per line, one reply per request,
in order. Requests may be pipelined.

  request = id SP verb *( SP key \"=\" value ) LF
  reply   = id SP ( \"allow\" / \"deny\" / \"error\" / \"pong\" / \"event\" ) *( SP key \"=\" value ) LF
  id      = 1 to 16 of A-Z a-z 0-9, chosen by the peer; the reply repeats it, or has `-` instead
  value   = 1 to 128 of A-Z a-z 0-9 _ - . : @ + * #; a call also / ~ % !

A line has at most 1,024 bytes, its LF included; a CR before the LF is accepted. Tokens are
separated by exactly one space. A key may be given once. A line outside the grammar is answered with
`error` and changes nothing.
";

/// The changes that a watcher receives, with their reasons.
const CHANGES: &[(&str, &str)] = &[
    ("session_began", "`login`; `adopted` by a link, because the PBX had the member"),
    (
        "session_ended",
        "`logout`; `expiry` of a lease; `idle` for `idle_max_seconds`; `shift` of the queue over; `revocation` by a supervisor or an operator; `removal` of the user or the queue by a reload; `pbx`: the agent left at the PBX; `unconfirmed`: the PBX never had the member",
    ),
    ("supervision_began", "`permission`"),
    (
        "supervision_ended",
        "`report` by the PBX; `replacement` by another mode; `expiry` after 4 hours; `revocation` by a reload or an operator; `removal` by a reload",
    ),
];

/// The reports of a PBX about its calls.
const REPORTS: &[(&str, &str, &str, &str)] = &[
    (
        "call.begin",
        "`call`",
        "`queue`",
        "The actor has this call, from that queue. Reported again: the call now belongs to this actor; if nothing changed, the audit log takes it as any question that changes nothing.",
    ),
    ("call.end", "`call`", "", "The call is over, and with it every supervision of the call."),
    (
        "call.transfer",
        "`call`",
        "`target` `queue`",
        "The actor, whose call it is, transfers it. With `target`, that user may replace the call once within 30 s, and nobody else. The target is not the actor (`self_target`), and `queue` is no other queue than that of the call (`call_mismatch`).",
    ),
    (
        "supervision.end",
        "",
        "`target` `call`",
        "The actor's supervision of the target or of the call is over; without both: of every target.",
    ),
];

/// The checks of `/readyz`.
const CHECKS: &[(&str, &str)] = &[
    ("open", "The process has not begun to stop."),
    ("configuration", "A policy is in force. A reload that fails does not change this check."),
    ("store", "The session store can be written."),
    ("audit", "The audit log can be written, or is off."),
    ("listeners", "Every configured listener accepts connections."),
    ("decisions", "The self test made a decision within the last 5 s."),
];

fn two(title: &str, header: &[&'static str; 2], rows: &[(&str, &str)]) -> Table {
    Table::new(title, header, rows.iter().map(|(name, text)| vec![code(name), (*text).to_owned()]))
}

/// The keys for which `is_listed` holds, as code words.
fn key_names(is_listed: impl Fn(Key) -> bool) -> String {
    let names = REQUEST_KEYS.iter().filter(|row| is_listed(row.key)).map(|row| code(row.key.name()));
    names.collect::<Vec<_>>().join(" ")
}

pub(super) fn verbs() -> Table {
    let rows = VERBS.iter().map(|verb| {
        let is_required = |key| verb.required.contains(&key);
        let optional = key_names(|key| verb.admitted.has(key) && !is_required(key));
        vec![code(verb.name), key_names(is_required), optional, verb.description.to_owned()]
    });
    Table::new("Verbs", &["Verb", "Needs", "May have", "Meaning"], rows)
}

pub(super) fn request_keys() -> Table {
    let rows = REQUEST_KEYS.iter().map(|row| {
        let listed = ATTRIBUTE_VALUES.iter().filter(|(key, _)| *key == row.key).map(|(_, value)| code(value));
        let listed = listed.collect::<Vec<_>>().join(", ");
        let values = if row.values.is_empty() { listed } else { row.values.to_owned() };
        vec![code(row.key.name()), values, row.description.to_owned()]
    });
    Table::new("Keys of requests, in every dialect", &["Key", "Values", "Meaning"], rows)
}

fn answer_fields(title: &str, name: &'static str, fields: &[AnswerField]) -> Table {
    let row = |field: &AnswerField| vec![code(field.name), field.carried_by.to_owned(), field.description.to_owned()];
    Table::new(title, &[name, "In", "Meaning"], fields.iter().map(row))
}

pub(super) fn reply_keys() -> Table {
    answer_fields("Keys of replies, in their order", "Reply key", REPLY_KEYS)
}

pub(super) fn fastagi_variables() -> Table {
    answer_fields("Variables of an answer to Asterisk", "Variable", fastagi::ANSWER_VARIABLES)
}

pub(super) fn freeswitch_variables() -> Table {
    answer_fields("Variables of an answer to FreeSWITCH", "Variable", freeswitch::ANSWER_VARIABLES)
}

pub(super) fn changes() -> Table {
    two("Changes that a watcher receives", &["Change", "Reasons"], CHANGES)
}

pub(super) fn reports() -> Table {
    let rows = REPORTS.iter().map(|(report, needs, may_have, meaning)| {
        vec![code(report), (*needs).to_owned(), (*may_have).to_owned(), (*meaning).to_owned()]
    });
    Table::new("Reports of a PBX", &["Report", "Needs", "May have", "Meaning"], rows)
}

pub(super) fn routes() -> Table {
    let rows = ROUTES.iter().map(|route| vec![code(route.path), route.method.to_owned(), route.answers.to_owned()]);
    Table::new("Requests to the admin listener", &["Path", "Method", "Meaning"], rows)
}

pub(super) fn checks() -> Table {
    two("Checks of readiness", &["Check", "Holds while"], CHECKS)
}
