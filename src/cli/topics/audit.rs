//! The members and the events of the audit log.

use crate::cli::topics::{Table, code};

/// Every member of a line, in the order of the line. A test compares them with `queuewarden audit export`.
const MEMBERS: &[(&str, &str)] = &[
    ("sequence", "The number of the line in its chain, from 1, counted over all files and restarts."),
    (
        "time",
        "The time of the decision in UTC (RFC 3339). Lines are in the order of writing, so times may go back by some milliseconds.",
    ),
    ("event", "The kind of line: see the events."),
    (
        "id",
        "The id of the decision: the sequence of the `start` line of its process in `record`, and its number since then.",
    ),
    ("organization", "The organization."),
    ("actor", "The extension of the actor. For an unknown actor: the word that the peer sent."),
    ("user", "The extension of the user whose login session or supervision ended without a question."),
    ("action", "The action that was judged."),
    ("intent", "`do`, or `may` for a question that changes nothing."),
    ("digits", "The dialed digits."),
    ("target", "The extension of the target."),
    ("queues", "The numbers of the queues."),
    ("from", "The queue that the target was moved from."),
    ("group", "The group."),
    ("role", "The role that was given."),
    ("lease_seconds", "Seconds until a login by a supervisor ends. Absent: at logout."),
    ("call", "The id of the call."),
    ("mode", "The mode of a supervision."),
    ("until", "When the asker stops waiting, in milliseconds since 1970."),
    ("once", "The name of the question, by which a repeat is known."),
    ("via", "The channel of the request: `phone` or `dashboard`."),
    ("channel", "The name of the PBX's channel, as `PJSIP/1001-00000007`, of a request that is no question."),
    ("dialect", "The dialect of the peer."),
    ("peer", "The peer: its address and port, or its user id and process id on a Unix socket; or the link."),
    (
        "by",
        "Who acted: the id of the user, or `operator:` and the key of the listener of the operator, with `,uid=N` on the Unix socket.",
    ),
    ("verdict", "`allow` or `deny`, as the peer received it."),
    ("reason", "The reason. For an end without a question: the reason that `watch` gives."),
    (
        "key",
        "The key that is wrong, of a request that is no question; for `unknown_key` the name that stands in its place.",
    ),
    (
        "rules",
        "The rules of the grant that allowed the action, or that named the reason of the denial. Without a grant: the rules of the action.",
    ),
    ("grant", "The place of that grant: `file:line`."),
    ("policy", "The revision of the policy that judged."),
    (
        "policy_hash",
        "The hash of the configuration files, equal to the output of `sha256sum models/*.toml organizations/*.[ct]* queuewarden.toml | sha256sum` in the configuration folder. A CSV file counts only if an organization names it; secrets never count.",
    ),
    ("one_in", "The line represents this number of allowed questions that change nothing."),
    ("count", "The number of things that the event is about."),
    ("of", "The id of the decision that was refused or undone afterwards."),
    ("through", "The sequence of the last line that was removed; of `record_head`, of the last line of `record`."),
    ("details", "Further details as text."),
    ("prev", "The hash of the line before in the chain; zeros in the first line."),
    ("hash", "SHA-256 of the line up to `,\"hash\":`, without these bytes."),
];

/// Every event. A test compares them with the code.
const EVENTS: &[(&str, &str)] = &[
    ("decision", "A question was answered."),
    (
        "error",
        "A request was denied because it is no question; `reason` is the error, and the line has what can be read of the request.",
    ),
    (
        "errors_left_out",
        "`count` errors of the peer were not recorded: the peer made more than 200 in 10 s, or all peers together more than 2,000.",
    ),
    (
        "denials_left_out",
        "`count` denials with this `reason` of the peer were not recorded: the peer made more than 500 in 10 s, or all peers together more than 10,000.",
    ),
    (
        "over_quota",
        "`count` lines of the actor are in `decisions` and not in `record`: the actor had more than 1,000 in an hour.",
    ),
    (
        "record_head",
        "Line `through` of `record` has the hash in `details`. Written to `decisions` every 10 s if `record` has new lines, and at the end.",
    ),
    (
        "clock_suspect",
        "The wall clock moved by more than 5 min against the time since the boot; `details` has the seconds. No file is removed because of its age until `clock_trusted`.",
    ),
    ("clock_trusted", "The wall clock is back, or the new time has held for as long as the jump was."),
    (
        "refused",
        "The session store could not write the change of an earlier decision: the peer received `state_unavailable`.",
    ),
    (
        "undone",
        "The change of an earlier decision was durable, or its answer due, after its `until`: it was undone, and the peer received `too_late`.",
    ),
    (
        "session_began",
        "A login session began without a question: a link adopted a member, or an operator restored a backup.",
    ),
    (
        "session_ended",
        "A login session ended without a question: by a lease, idle time, a shift, an operator, a link or a reload.",
    ),
    ("violation", "A link found a member or a listener at the PBX that nobody allowed; `peer` is the link."),
    (
        "member_removed",
        "A link removed the queue member of a login session that ended, whoever ended it; `peer` is the link.",
    ),
    ("supervision_ended", "A supervision ended without a question."),
    ("link_command", "An operator let the link `peer` poll, adopt members, or go on; `details` has the command."),
    ("backup", "An operator wrote a backup with `count` login sessions."),
    ("restore", "An operator restored a backup: `count` login sessions began or ended; their lines follow."),
    ("start", "A process began to write the log."),
    ("stop", "The process stopped in order. A `start` without a `stop` before it means a crash."),
    ("reload", "A new policy is in force."),
    ("reload_failed", "The configuration did not load; `count` is the number of problems."),
    ("dropped", "`count` lines of this chain found no room in memory because the disk was slower than the questions."),
    (
        "sampled",
        "`count` allowed questions that change nothing were over `plain_allows_per_second` since the last such line.",
    ),
    ("resumed", "The log can be written again after a failure."),
    ("cut", "A crash tore the last line: `count` bytes behind the last whole line were removed at the start."),
    ("retention", "`count` files of this chain were removed because of their age or the total size."),
];

fn table(title: &str, head: &'static str, rows: &[(&str, &str)]) -> Table {
    let rows = rows.iter().map(|(name, meaning)| vec![code(name), (*meaning).to_owned()]);
    Table::new(title, &[head, "Meaning"], rows)
}

pub(super) fn members() -> Table {
    table("Members of a line of the audit log", "Member", MEMBERS)
}

pub(super) fn events() -> Table {
    table("Events of the audit log", "Event", EVENTS)
}
