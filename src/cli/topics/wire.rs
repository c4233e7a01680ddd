//! The line dialect, the keys that every dialect shares, and the admin listener.

use crate::cli::topics::keys::grouped;
use crate::cli::topics::{Table, code};
use crate::event::{ATTRIBUTE_VALUES, Key};
use crate::limits;

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

/// The verbs of the line dialect: the keys that a verb needs, further keys, and what it does.
const VERBS: &[(&str, &str, &str, &str)] = &[
    (
        "dial",
        "`org` `actor` `digits`",
        "`queue` `call` `via`",
        "Looks the digits up in the feature codes of the organization, and does the action if it is allowed.",
    ),
    (
        "do",
        "`org` `actor` `action`",
        "every other key but `digits` and `token`",
        "Does the named action if it is allowed.",
    ),
    ("may", "`org` `actor` `action`", "as `do`", "Judges as `do`, and changes nothing."),
    (
        "auth",
        "`token`",
        "",
        "Presents the secret of `[listen] line_token_file`. Needed where that key is set; refused where it is not.",
    ),
    ("ping", "", "", "Is answered `pong`."),
    ("watch", "`org`", "`from`", "Turns the connection into a stream of the organization's changes."),
];

/// The keys of replies, in the order of the reply.
const REPLY_KEYS: &[(&str, &str, &str)] = &[
    (
        "action",
        "allow, deny",
        "The action that was judged. For a toggle: the action that it became. Absent if the event names no known action.",
    ),
    ("queue", "allow, deny", "The number of the queue that the event names."),
    ("queues", "allow, deny", "The numbers of all queues that an event without a queue applies to, separated by `,`."),
    ("reason", "always", "The reason: `queuewarden help reasons`."),
    ("policy", "allow, deny", "The revision of the policy that judged."),
    ("mode", "an allowed supervision", "`listen`, `whisper` or `barge`."),
    ("target", "an allowed supervision", "The extension of the target."),
    ("asterisk", "an allowed supervision", "The options for `ChanSpy`."),
    (
        "freeswitch",
        "an allowed supervision",
        "The channel variables for `eavesdrop`, as `name:value` separated by `,`.",
    ),
    ("key", "error", "The key that is wrong."),
    ("revision", "event", "The number of the change; the next change has the next number."),
    ("change", "event", "The kind of change."),
    ("user", "event", "The extension of the user who is logged in, or of the supervisor."),
];

/// The changes that a watcher receives, with their reasons.
const CHANGES: &[(&str, &str)] = &[
    ("session_began", "`login`"),
    (
        "session_ended",
        "`logout`; `expiry` of a lease; `revocation` by a supervisor or an operator; `removal` of the user or the queue by a reload",
    ),
    ("supervision_began", "`permission`"),
    (
        "supervision_ended",
        "`report` by the PBX; `replacement` by another mode; `expiry` after 4 hours; `revocation` by a reload or an operator; `removal` by a reload",
    ),
];

/// What a PBX reports about its calls.
const REPORTS: &[(&str, &str, &str, &str)] = &[
    (
        "call.begin",
        "`call`",
        "`queue`",
        "The actor has this call, from that queue. Reported again: the call now belongs to this actor.",
    ),
    ("call.end", "`call`", "", "The call is over, and with it every supervision of the call."),
    (
        "supervision.end",
        "",
        "`target` `call`",
        "The actor's supervision of the target or of the call is over; without both: of every target.",
    ),
];

/// The paths of the admin listener.
const ROUTES: &[(&str, &str)] = &[
    ("/metrics", "The metrics."),
    ("/livez", "200 while decisions are made; otherwise 503: restart the process."),
    (
        "/readyz",
        "200 while every check of readiness holds; otherwise 503 and the failed checks. `/readyz?verbose` lists all checks.",
    ),
    (
        "/status",
        "JSON: version, policy, last reload with its problems and warnings, listeners, connections, session store, audit log.",
    ),
    (
        "/explain",
        "JSON: the reason of the answer that a question would get now, as `/explain?org=acme&actor=1001&digits=*13600`, or with `action` and the keys of the line dialect. Changes nothing.",
    ),
    (
        "/what",
        "JSON: what an actor may do, as `/what?org=acme&actor=1001`; narrowed by `action`, `queue`, `target`, `via`. `next` is the `from` of the next page.",
    ),
    ("/who", "JSON: who may do an action, as `/who?org=acme&action=call.barge&target=1001`; paged like `/what`."),
    (
        "/sessions",
        "JSON: login sessions, narrowed by `org`, `user`, `queue`, `kept=true`; paged by `from`. `DELETE` with `org`, `user` and optionally `queue` ends sessions.",
    ),
    (
        "/supervisions",
        "JSON: supervisions, narrowed by `org`, `user`, `target`, `queue`; paged by `from`. `DELETE` with `org` and `user` or `target` ends supervisions.",
    ),
    ("/log", "JSON: the filter of the log. `PUT` with `filter` changes it; `PUT` without `filter` resets it."),
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

pub(super) fn verbs() -> Table {
    let rows = VERBS.iter().map(|(verb, needs, may_have, does)| {
        vec![code(verb), (*needs).to_owned(), (*may_have).to_owned(), (*does).to_owned()]
    });
    Table::new("Verbs", &["Verb", "Needs", "May have", "Meaning"], rows)
}

pub(super) fn request_keys() -> Table {
    let rows = Key::ALL.iter().map(|&key| {
        let (values, meaning) = request_key(key);
        let closed = ATTRIBUTE_VALUES.iter().filter(|(of, _)| *of == key).map(|(_, value)| code(value));
        let closed = closed.collect::<Vec<_>>().join(", ");
        vec![code(key.name()), if closed.is_empty() { values } else { closed }, meaning.to_owned()]
    });
    Table::new("Keys of requests, in every dialect", &["Key", "Values", "Meaning"], rows)
}

/// The values of a key that has no closed list, and the meaning of the key.
fn request_key(key: Key) -> (String, &'static str) {
    let (values, meaning) = match key {
        Key::Organization => ("a name", "The organization."),
        Key::Actor => ("an extension or a user id", "The user who asks."),
        Key::Action => ("a name", "The action: `queuewarden models` lists them."),
        Key::Digits => ("1 to 128 of `0-9 * #`", "The dialed digits."),
        Key::Queue => ("a queue number or id", "The queue; for a supervision, the queue of the call."),
        Key::Target => ("an extension or a user id", "The user whom the action affects."),
        Key::Call => ("an id", "The call."),
        Key::ToTag => ("an id", "The SIP tag of the called side of the call. No rule reads it."),
        Key::FromTag => ("an id", "The SIP tag of the caller's side of the call. No rule reads it."),
        Key::Via => ("", "The channel of the request; by default `phone`."),
        Key::For => {
            return (
                format!("1 to {} seconds", grouped(limits::LEASE_SECONDS_MAX.into())),
                "Seconds until a supervisor's login of another user ends.",
            );
        }
        Key::From => (
            "a queue number or id",
            "The queue that the target is moved from; `queue` is the new one. Of `watch`: the last revision that the peer has seen.",
        ),
        Key::PauseReason => ("1 to 128 bytes", "The reason of a pause; `queuewarden sessions` shows it."),
        Key::Conversation => {
            ("", "The owner of the conversation; by default `agent`. The other values have no target.")
        }
        Key::Group => ("a group id", "A group of users."),
        Key::Role => ("a role of the model", "The role that is given."),
        Key::Field => ("", "The field of an object that is viewed or edited."),
        Key::Section => ("", "A section of the general settings."),
        Key::Kind => ("", "The kind of channel."),
        Key::Verb => ("", "What is done to the object."),
        Key::InUse => ("", "Whether the object is in use."),
        Key::Token => ("1 to 128 bytes", "The secret of `auth`."),
    };
    (values.to_owned(), meaning)
}

pub(super) fn reply_keys() -> Table {
    let row = |(key, place, meaning): &(&str, &str, &str)| vec![code(key), (*place).to_owned(), (*meaning).to_owned()];
    Table::new("Keys of replies, in their order", &["Reply key", "Where", "Meaning"], REPLY_KEYS.iter().map(row))
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
    two("Paths of the admin listener", &["Path", "Meaning"], ROUTES)
}

pub(super) fn checks() -> Table {
    two("Checks of readiness", &["Check", "Holds while"], CHECKS)
}
