//! The meaning, the default and the range of every configuration key.
//!
//! The descriptions in the JSON Schemas, the tables in `config/*/README.md` and `queuewarden help KEY` are rendered
//! from this list. The types, the required keys and the ranges of whole numbers come from the readers themselves; a
//! test compares the keys, and loads every default to see that it changes nothing.

use serde_json::{Map, Value};

use super::Kind;
use super::listen_keys::{LISTEN, LISTEN_MORE, PEERS};
use super::model_keys::{ACTIONS, GRANTS, MODEL, NEEDS_WITH, ROLES, SETTINGS, TARGETLESS};

/// The text about one key, or about several keys that mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyText {
    /// The keys, separated by spaces.
    pub names: &'static str,
    /// The default as Markdown: a value in backticks, `required`, `none`, or words.
    pub default: &'static str,
    /// The admitted values as Markdown. Empty for a whole number, whose range the reader knows, and for any value.
    pub range: &'static str,
    /// What the key does.
    pub meaning: &'static str,
}

/// The texts about the keys of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableText {
    /// The kind of file.
    pub kind: Kind,
    /// The header of the table without brackets; empty for the top level.
    pub table: &'static str,
    /// The keys, in the order of the manual.
    pub keys: &'static [KeyText],
}

pub(super) const fn key(
    names: &'static str,
    default: &'static str,
    range: &'static str,
    meaning: &'static str,
) -> KeyText {
    KeyText { names, default, range, meaning }
}

const fn table(kind: Kind, table: &'static str, keys: &'static [KeyText]) -> TableText {
    TableText { kind, table, keys }
}

/// Every table of every kind of file.
pub const TABLES: &[TableText] = &[
    table(Kind::Process, "", PROCESS),
    table(Kind::Process, "listen", LISTEN),
    table(Kind::Process, "listen.more", LISTEN_MORE),
    table(Kind::Process, "peers", PEERS),
    table(Kind::Process, "state", STATE),
    table(Kind::Process, "audit", AUDIT),
    table(Kind::Process, "limits", PROCESS_LIMITS),
    table(Kind::Process, "metrics", METRICS),
    table(Kind::Process, "connect", CONNECT),
    table(Kind::Process, "connect.asterisk_ami", ASTERISK_AMI),
    table(Kind::Process, "connect.freeswitch_esl", FREESWITCH_ESL),
    table(Kind::Organization, "", ORGANIZATION),
    table(Kind::Organization, "leases", LEASES),
    table(Kind::Organization, "limits", ORGANIZATION_LIMITS),
    table(Kind::Organization, "logins", LOGINS),
    table(Kind::Organization, "shifts", SHIFTS),
    table(Kind::Organization, "queues", QUEUES),
    table(Kind::Organization, "users", USERS),
    table(Kind::Organization, "groups", GROUPS),
    table(Kind::Model, "", MODEL),
    table(Kind::Model, "roles", ROLES),
    table(Kind::Model, "settings", SETTINGS),
    table(Kind::Model, "actions", ACTIONS),
    table(Kind::Model, "actions.needs_with", NEEDS_WITH),
    table(Kind::Model, "actions.targetless", TARGETLESS),
    table(Kind::Model, "grants", GRANTS),
];

/// Adds the meaning of every key to the schema of a table, and of the tables inside it, as `description`.
pub(super) fn describe(kind: Kind, schema: &mut Map<String, Value>, path: &str) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (key, property) in properties {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Some(table) = property.as_object_mut() {
            describe(kind, table, &inner);
            if let Some(table) = table.get_mut("items").and_then(Value::as_object_mut) {
                describe(kind, table, &inner);
            }
            if let Some(meaning) = meaning(kind, path, key) {
                table.insert("description".to_owned(), meaning.into());
            }
        }
    }
}

/// The meaning of a key of this table; `None` if the table or the key is not in the list.
fn meaning(kind: Kind, path: &str, name: &str) -> Option<&'static str> {
    let found = TABLES.iter().find(|text| text.kind == kind && text.table == path)?;
    found.keys.iter().find(|text| text.names.split(' ').any(|one| one == name)).map(|text| text.meaning)
}

const PROCESS: &[KeyText] = &[
    key("listen", "none", "", "The listeners: where PBXs and operators connect."),
    key("peers", "none", "at most 256", "Who may ask: the processes and machines that may connect."),
    key("state", "none", "", "Where login sessions are stored."),
    key("audit", "none", "", "How the audit log is written, rotated and removed."),
    key("limits", "none", "", "Bounds of the process."),
    key("metrics", "none", "", "Optional metrics."),
    key("connect", "none", "", "The servers that queuewarden connects to."),
];

const STATE: &[KeyText] = &[
    key(
        "store",
        "`\"disk\"`",
        "`disk`, `memory`",
        "Where login sessions are stored. `disk`: in a file of the state folder; acknowledged changes survive a restart, `kill -9` and power loss. `memory`: sessions end with the process, and the log warns of it.",
    ),
    key("folder", "`\"state\"`", "a path", "The state folder. The process locks it, so only one process can use it."),
];

const AUDIT: &[KeyText] = &[
    key("enabled", "`true`", "", "Whether an audit log is written."),
    key(
        "folder",
        "`\"state/audit\"`",
        "a path",
        "The folder of the audit log; by default `audit` in the state folder. Only one process can write it.",
    ),
    key("rotation_max_bytes", "`67_108_864`", "", "Size of a file in bytes after which the next file begins."),
    key("rotation_max_seconds", "`86_400`", "", "Age of a file in seconds after which the next file begins."),
    key(
        "retention_max_seconds",
        "`7_776_000`",
        "",
        "Age in seconds of the last line of a file of `decisions` after which the file is removed.",
    ),
    key(
        "retention_max_bytes",
        "`10_737_418_240`",
        "",
        "Total size in bytes of `decisions` above which its oldest files are removed; 0: never for their size.",
    ),
    key(
        "record_retention_max_seconds",
        "none",
        "",
        "The same age for `record`: logins, supervisions, the acts of operators and links, reloads. Without it: as `retention_max_seconds`.",
    ),
    key(
        "record_retention_max_bytes",
        "none",
        "",
        "The same size for `record`, which counts by itself: lines of `decisions` remove none of its files. Without it: as `retention_max_bytes`.",
    ),
    key(
        "witness",
        "none",
        "`exec:`, `syslog:`, `file:`",
        "Who is told the last line of both chains, signed: `exec:COMMAND` (no shell; the line is on its standard input), `syslog:HOST:PORT` over UDP, `syslog:/dev/log`, or `file:PATH`.",
    ),
    key("witness_interval_seconds", "`60`", "", "Seconds between two lines for the witness."),
    key("plain_allows_one_in", "`1`", "", "Of N allowed questions that change nothing, one is written. This is N."),
    key(
        "plain_allows_per_second",
        "`1_000`",
        "",
        "The most allowed questions that change nothing which are written in one second. Further ones are counted in a `sampled` line.",
    ),
];

const PROCESS_LIMITS: &[KeyText] = &[
    key("connections_max", "`10_000`", "", "The most connections that all dialects may have open together."),
    key(
        "drain_delay_seconds",
        "`0`",
        "",
        "Seconds between the moment when `/readyz` reports a stop and the moment when the listeners close.",
    ),
];

const METRICS: &[KeyText] = &[key(
    "sessions_by_queue_max",
    "`0`",
    "",
    "The most queues that get a series of their own in `queuewarden_sessions_by_queue`, in the order of organization and number; 0: none.",
)];

const CONNECT: &[KeyText] = &[
    key("evapi", "`[]`", "address:port, each", "The Kamailios that queuewarden connects to over evapi, at most 64."),
    key(
        "asterisk_ami",
        "none",
        "at most 64",
        "The Asterisks that queuewarden connects to over AMI, one table for each.",
    ),
    key(
        "freeswitch_esl",
        "none",
        "at most 64",
        "The FreeSWITCHes that queuewarden connects to over the event socket, one table for each.",
    ),
];

/// The keys of every link, whatever its PBX is.
const OF_EVERY_LINK: [KeyText; 8] = [
    key(
        "members",
        "`\"observe\"`",
        "off, observe, repair or enforce",
        "How far the link goes with queue members. `off`: it only removes members of ended sessions. `observe`: it also counts and lists differences. `repair`: it also adds and pauses members, and ends sessions whose members are gone. `enforce`: it also removes members without a session.",
    ),
    key(
        "supervisions",
        "`\"observe\"`",
        "off, observe or enforce",
        "How far the link goes with channels that listen to others without being allowed. `observe`: it counts them. `enforce`: it hangs them up. Supervisions that end here are hung up in both.",
    ),
    key(
        "adopt",
        "`false`",
        "true or false",
        "With `members = \"enforce\"`: a member without a session becomes a session, if its user may log in today, instead of being removed.",
    ),
    key(
        "poll_interval_seconds",
        "`60`",
        "1 to 3,600",
        "Seconds between two complete comparisons. Between them the link looks at a member when the PBX or a session changes.",
    ),
    key(
        "undo_max_per_minute",
        "`30`",
        "1 to 100,000",
        "Members that the link removes, and sessions that it ends because their members are gone, in a minute; further ones wait.",
    ),
    key(
        "undo_max_percent",
        "`20`",
        "0 to 100",
        "The same from one comparison to the next, in percent of the members of a queue. If it would be more, and more than 3, the link stops in that queue until `queuewarden links resume`. 100: it never stops.",
    ),
    key(
        "agents_file",
        "none",
        "a path",
        "A CSV file with the header `extension,name`: the members whose names follow no pattern.",
    ),
    key(
        "queues_file",
        "none",
        "a path",
        "A CSV file with the header `number,name`: the queues whose names follow no pattern.",
    ),
];

/// The keys of one kind of link: `own`, then those of every link.
#[expect(clippy::indexing_slicing, reason = "it runs in the compiler, which refuses an index that is out of range")]
const fn with_link_keys<const OWN: usize, const ALL: usize>(own: [KeyText; OWN]) -> [KeyText; ALL] {
    assert!(ALL == OWN + OF_EVERY_LINK.len(), "every key has a place");
    let mut all = [OF_EVERY_LINK[0]; ALL];
    let mut place = 0;
    while place < ALL {
        all[place] = if place < OWN { own[place] } else { OF_EVERY_LINK[place - OWN] };
        place += 1;
    }
    all
}

const ASTERISK_AMI: &[KeyText] = &with_link_keys::<11, 19>([
    key(
        "organization",
        "required",
        "an organization",
        "The organization whose agents are members of this Asterisk's queues.",
    ),
    key(
        "address",
        "required",
        "address:port",
        "The address of AMI. Without `tls` AMI is not encrypted: an address other than loopback causes a warning.",
    ),
    key(
        "tls",
        "`false`",
        "true or false",
        "AMI over TLS, to the port of `tlsbindaddr` in `manager.conf`. The certificate of Asterisk is checked against `ca_file`.",
    ),
    key(
        "ca_file",
        "none",
        "a path; at most 256 KiB",
        "Required with `tls`. The PEM file with the authorities that may sign the certificate of this Asterisk. The authorities of the system are not asked. A reload reads the file again, for the next connection.",
    ),
    key(
        "tls_name",
        "none",
        "a host name or an address",
        "With `tls`: the name that the certificate of Asterisk must have as a subject alternative name. Without the key: the address of `address`.",
    ),
    key(
        "username",
        "required",
        "1 to 64 bytes",
        "A section of `manager.conf`: `read = agent,call` and `write = agent,call,reporting`, and no other class; `write = agent` alone with `members = \"off\"`.",
    ),
    key(
        "secret_file",
        "required",
        "a path; 1 to 128 bytes, and a newline",
        "The file with the secret of that section. The secret is never sent: the login uses an MD5 challenge.",
    ),
    key(
        "interface",
        "`\"PJSIP/%\"`",
        "one `%`",
        "The interface of a member, equal to `QW_MEMBER` of the dialplan; `%` is the extension.",
    ),
    key(
        "state_interface",
        "`\"PJSIP/%\"`",
        "one `%`",
        "The device whose state makes a member busy, equal to `QW_MEMBER_STATE` of the dialplan; `%` is the extension.",
    ),
    key("queue", "`\"%\"`", "one `%`", "The name of a queue in `queues.conf`; `%` is its number."),
    key(
        "name",
        "`\"asterisk-1\"`, numbered",
        "1 to 128 of A-Z a-z 0-9 - _ .",
        "The name of the link, unique among all links.",
    ),
]);

const FREESWITCH_ESL: &[KeyText] = &with_link_keys::<7, 15>([
    key(
        "organization",
        "required",
        "an organization",
        "The organization whose agents are members of this FreeSWITCH's queues.",
    ),
    key(
        "address",
        "required",
        "address:port",
        "The address of the event socket. It is not encrypted: an address other than loopback causes a warning.",
    ),
    key(
        "username",
        "none",
        "user@domain",
        "A directory user with `esl-allowed-api` and `esl-allowed-events`. Without it the link logs in with the password of `event_socket.conf.xml` and may do everything.",
    ),
    key(
        "secret_file",
        "required",
        "a path; 1 to 128 bytes, and a newline",
        "The file with the password, which is sent as it is: keep the event socket on loopback.",
    ),
    key(
        "agent",
        "`\"%\"`",
        "one `%`",
        "The agent of mod_callcenter, for example `\"%@acme.example\"`; `%` is the extension.",
    ),
    key(
        "queue",
        "`\"%\"`",
        "one `%`",
        "The queue of mod_callcenter, for example `\"%@acme.example\"`; `%` is its number.",
    ),
    key(
        "name",
        "`\"freeswitch-1\"`, numbered",
        "1 to 128 of A-Z a-z 0-9 - _ .",
        "The name of the link, unique among all links.",
    ),
]);

const ORGANIZATION: &[KeyText] = &[
    key("organization", "required", "an id", "The name of the organization on the wire."),
    key("model", "required", "a file of `models/` without `.toml`", "The role model of the organization."),
    key(
        "domains",
        "`[]`",
        "host names (RFC 1123) or IP addresses, at most 128 bytes each, at most 256",
        "The SIP domains of the organization's users, whatever their case, without a dot at the end. A PBX that authenticates users of several domains names the domain instead of the organization (FreeSWITCH: `qw_domain`). Each domain belongs to one organization.",
    ),
    key("feature_code_preset", "none", "a preset", "The table of feature codes that the phones dial."),
    key(
        "feature_codes",
        "none",
        "at most 256, preset included",
        "Feature codes that are added to the preset or override it.",
    ),
    key("settings", "none", "settings of the model", "Switches of the role model."),
    key("leases", "none", "", "How long a supervisor's login of another user lasts."),
    key("limits", "none", "", "Bounds of login sessions and supervisions."),
    key("logins", "none", "", "When the login sessions that users open themselves end."),
    key("shifts", "none", "at most 4,096", "When users may log in to a queue."),
    key("queues", "none", "at most 65,535", "The queues."),
    key("users", "none", "at most 8,000,000 with those of `users_csv`", "The users."),
    key("users_csv", "none", "a path that starts at this file's folder", "A CSV file with further users."),
    key("groups", "none", "at most 65,535", "The groups of users."),
];

const LEASES: &[KeyText] = &[
    key("default_seconds", "`0`", "", "Seconds until a lease ends if the event has no `for`; 0: at logout."),
    key(
        "max_seconds",
        "`43_200`",
        "",
        "The longest lease in seconds that an event may ask for; a longer one is `malformed`.",
    ),
];

const LOGINS: &[KeyText] = &[key(
    "idle_max_seconds",
    "none",
    "",
    "Seconds after a user's last question or call until the login sessions that the user opened end. Unset: they do not.",
)];

const SHIFTS: &[KeyText] = &[
    key("queue", "required", "a queue id or number", "The queue. A queue without a shift is always open."),
    key("days", "required", "`mon` `tue` `wed` `thu` `fri` `sat` `sun`", "The days on which the shift begins."),
    key("from", "required", "`\"00:00\"` to `\"23:59\"`", "When the shift begins, in local time."),
    key(
        "to",
        "required",
        "`\"00:00\"` to `\"24:00\"`",
        "When the shift ends, in local time. Earlier than `from`: on the following day.",
    ),
    key("time_zone", "required", "an IANA name", "The time zone, as `\"Europe/Berlin\"`."),
    key(
        "applies",
        "`\"login\"`",
        "`login`, `session`",
        "`login`: outside the shift nobody logs in. `session`: the end of the shift also ends login sessions.",
    ),
];

const ORGANIZATION_LIMITS: &[KeyText] = &[
    key("logins_per_user_max", "`256`", "", "The most login sessions of one user."),
    key("logins_per_queue_max", "`8_000_000`", "", "The most login sessions in one queue."),
    key("logins_max", "`16_000_000`", "", "The most login sessions in the organization."),
    key("supervisions_per_target_max", "`65_536`", "", "The most supervisions of one target at once."),
    key("supervisions_per_supervisor_max", "`65_536`", "", "The most supervisions by one supervisor at once."),
    key(
        "one_queue_at_a_time",
        "`false`",
        "",
        "Whether a user who is logged in to one queue is refused in every other queue.",
    ),
];

const QUEUES: &[KeyText] = &[
    key("id", "required", "an id", "The name of the queue in the configuration."),
    key("number", "required", "a number", "The number that phones dial and that answers name."),
    key(
        "kind",
        "`\"call\"`",
        "`call`, `ring_group`, `inbox`, `campaign`",
        "The kind of queue. An action may be limited to some kinds.",
    ),
    key("wrap_up_seconds", "`0`", "", "Seconds after a call before the next call is offered; 0: no wrap-up."),
    key("callback", "`false`", "", "Whether the queue is a callback queue (Voximplant)."),
    key(
        "supervisable",
        "`true`",
        "",
        "Whether calls of the queue may be supervised. `false`: nobody listens to, whispers into or joins a call of the queue, as card payments or a works council may demand.",
    ),
];

const USERS: &[KeyText] = &[
    key("id", "required", "an id", "The name of the user in the configuration."),
    key("extension", "required", "a number", "The number of the user's phone."),
    key(
        "roles",
        "`[]`",
        "roles of the model",
        "The roles. Without a role: a plain PBX user. Several roles allow what any of them allows.",
    ),
    key("queues", "`[]`", "queue ids or numbers, at most 256", "The queues that the user serves."),
    key(
        "supervises",
        "`[]`",
        "queue ids or numbers",
        "The queues that the user supervises. Has no effect without a role that supervises; `check` warns of it.",
    ),
    key("edits", "`[]`", "some of `supervises`", "The supervised queues on which the user has the editor flag."),
    key("protected", "`false`", "", "Whether nobody may supervise this user."),
];

const GROUPS: &[KeyText] = &[
    key("id", "required", "an id", "The name of the group in the configuration and on the wire."),
    key("supervisors", "`[]`", "user ids or extensions", "The users who lead the group."),
    key("members", "`[]`", "user ids or extensions", "The users in the group."),
    key(
        "outbound",
        "none",
        "",
        "Whether members may call out. Unset: the setting of the organization decides. Of several groups, `false` wins.",
    ),
];
