//! Every hard limit of the sidecar, with its unit in its name.
//!
//! An operator can lower some of these limits in the configuration; raising one needs a change of this file.
//! `relations` asserts at compile time which limit has to fit in which other. [`all_limits`] lists all of them with
//! their documentation, for the help and the manual.

mod audit;
mod limit;
mod load;
mod operation;
mod peers;
mod relations;

use std::time::Duration;

pub use audit::*;
pub use limit::Limit;
use limit::limits;
pub use load::*;
pub use operation::*;
pub use peers::*;

/// The `nice` value of the thread that loads a configuration, so that decisions have precedence. Not a limit.
pub const RELOAD_NICENESS: i32 = 5;

limits! {
    OF_THIS_FILE;

    // Configuration ---------------------------------------------------------------------------------------------------

    /// Organizations in one process.
    ORGANIZATIONS_MAX: usize = 4_096;
    /// Users of one organization.
    USERS_PER_ORGANIZATION_MAX: usize = 8_000_000;
    /// Queues of one organization: a queue id has 16 bits.
    QUEUES_PER_ORGANIZATION_MAX: usize = 65_535;
    /// Groups of one organization: a group id has 16 bits.
    GROUPS_PER_ORGANIZATION_MAX: usize = 65_535;
    /// Queues that one user may serve, and therefore queues that one decision can be about.
    QUEUES_PER_USER_MAX: usize = 256;
    /// SIP domains of one organization.
    DOMAINS_PER_ORGANIZATION_MAX: usize = 256;
    /// Bytes of one part of a SIP domain, between dots (RFC 1123).
    DOMAIN_LABEL_BYTES_MAX: usize = 63;
    /// Feature codes of one organization, including those of its preset.
    FEATURE_CODES_PER_ORGANIZATION_MAX: usize = 256;
    /// Roles of one role model: a set of roles has 16 bits.
    ROLES_PER_MODEL_MAX: usize = 16;
    /// Settings of one role model: a set of settings has 64 bits.
    SETTINGS_PER_MODEL_MAX: usize = 64;
    /// Actions of one role model.
    ACTIONS_PER_MODEL_MAX: usize = 256;
    /// Grants of one role model.
    GRANTS_PER_MODEL_MAX: usize = 4_096;
    /// Bytes of one TOML file; larger organizations keep their users in a CSV file.
    TOML_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
    /// Bytes of a TOML file of which every syntax error is reported; of a larger file only the first error is reported.
    TOML_RECOVERED_BYTES_MAX: usize = 256 * 1024;
    /// Bytes of one CSV file.
    CSV_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
    /// Bytes of one line of a CSV file.
    CSV_LINE_BYTES_MAX: usize = 64 * 1024;
    /// Names of broken users, or of broken queues, of one file that are kept, to leave out what follows from them.
    BROKEN_NAMES_MAX: usize = 100_000;
    /// Problems of one kind in one file that are reported each; more of them are reported as one.
    PROBLEMS_OF_A_KIND_MAX: usize = 8;
    /// Further places of one problem that are reported; others are counted.
    PROBLEM_PLACES_MAX: usize = 3;
    /// Problems that one load of the configuration reports; further problems are counted.
    PROBLEMS_REPORTED_MAX: usize = 100;
    /// Bytes of an id in the configuration.
    ID_BYTES_MAX: usize = 64;
    /// Digits of an extension, of a queue number or of the argument of a feature code.
    NUMBER_DIGITS_MAX: usize = 16;
    /// Bytes of the pattern of a feature code.
    FEATURE_CODE_BYTES_MAX: usize = 64;
    /// Bytes of the token of the line dialect.
    TOKEN_BYTES_MAX: usize = VALUE_BYTES_MAX;
    /// Bytes of the secret of a link.
    LINK_SECRET_BYTES_MAX: usize = 128;
    /// Bytes of the name of an AMI user.
    AMI_USERNAME_BYTES_MAX: usize = 64;
    /// Bytes of the pattern for the names of members, or of queues, at a PBX.
    LINK_PATTERN_BYTES_MAX: usize = 64;
    /// Bytes of one problem of the configuration; the rest of a longer message is cut off.
    PROBLEM_BYTES_MAX: usize = 1_024;
    /// Bytes of one value in a problem of the configuration; the rest of a longer value is cut off.
    PROBLEM_VALUE_BYTES_MAX: usize = 128;
    /// Seconds of a lease: 31 days.
    LEASE_SECONDS_MAX: u32 = 31 * 24 * 3_600;
    /// Shifts of one queue.
    SHIFTS_PER_QUEUE_MAX: usize = 64;
    /// Shifts of one organization.
    SHIFTS_PER_ORGANIZATION_MAX: usize = 4_096;
    /// Host names under which the admin listener answers.
    ADMIN_HOSTS_MAX: usize = 64;

    // Dialects --------------------------------------------------------------------------------------------------------

    /// Bytes of one value in any dialect.
    VALUE_BYTES_MAX: usize = 128;
    /// Bytes of one line of the line dialect, including its LF.
    LINE_BYTES_MAX: usize = 1_024;
    /// Bytes of one answer of the line dialect that `queuewarden ask` reads: every queue of a user, and the other keys.
    LINE_ANSWER_BYTES_MAX: u64 = 16 * 1024;
    /// Bytes of the id of a request in the line dialect.
    REQUEST_ID_BYTES_MAX: usize = 16;
    /// Bytes of one FastAGI environment.
    AGI_ENVIRONMENT_BYTES_MAX: usize = 16 * 1024;
    /// Lines of one FastAGI environment.
    AGI_ENVIRONMENT_LINES_MAX: usize = 200;
    /// Bytes of one command line to Asterisk, which runs the rest of a longer line as the next command.
    AGI_COMMAND_BYTES_MAX: usize = 8_191;
    /// Bytes of one reply line from Asterisk after the answer; a longer line ends the connection.
    AGI_REPLY_BYTES_MAX: usize = 16 * 1024;
    /// Bytes of the first line of AMI, including its CR LF.
    AMI_BANNER_BYTES_MAX: usize = 64;
    /// Bytes of one line of AMI, without its CR LF.
    AMI_LINE_BYTES_MAX: usize = 4 * 1024;
    /// Bytes of one response or event of AMI.
    AMI_MESSAGE_BYTES_MAX: usize = 64 * 1024;
    /// Bytes of one value that is sent to AMI.
    AMI_VALUE_BYTES_MAX: usize = 128;
    /// Bytes of one FreeSWITCH header block, including its empty line; about 4 KiB are usual.
    FREESWITCH_BLOCK_BYTES_MAX: usize = 64 * 1024;
    /// Bytes of one reply line from FreeSWITCH after the answer; a longer line ends the connection.
    FREESWITCH_REPLY_BYTES_MAX: usize = 16 * 1024;
    /// Bytes of the JSON in one netstring from Kamailio.
    NETSTRING_BYTES_MAX: usize = 4_096;
    /// Bytes of the id of a JSON-RPC request, as written in the request.
    JSONRPC_ID_BYTES_MAX: usize = 64;

    // Connections -----------------------------------------------------------------------------------------------------

    /// Open connections of all dialects together; `[limits] connections_max` cannot be larger.
    CONNECTIONS_MAX: usize = 100_000;
    /// Open connections of all dialects together if `[limits] connections_max` is not set.
    CONNECTIONS_DEFAULT: usize = 10_000;
    /// Connections over the limit that are answered with an error at the same time; further connections are reset.
    REFUSALS_AT_ONCE_MAX: usize = 1_024;
    /// Peers whose connections have all ended that `queuewarden peers` lists; beyond this the one that was away longest
    /// is forgotten.
    CLOSED_PEERS_MAX: usize = 1_024;
    /// Peers that `/status` lists, those with the most connections.
    STATUS_PEERS_MAX: usize = 10;
    /// Connections that wait to be accepted; large, because Asterisk waits 2 s after a dropped SYN.
    LISTEN_BACKLOG: u32 = 4_096;
    /// Bytes of answers that wait for one peer to read them; above this the sidecar stops reading from the peer.
    ANSWER_BUFFER_BYTES_MAX: usize = 256 * 1024;
    /// Bytes that one read adds to the buffer of a connection.
    READ_BUFFER_BYTES_MAX: usize = 32 * 1024;
    /// Bytes of a buffer that a connection keeps between two questions.
    BUFFER_KEPT_BYTES_MAX: usize = 16 * 1024;
    /// Time without input after which a connection gives back its large buffers.
    LARGE_BUFFER_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
    /// Bytes of `once`, the name of a question.
    ONCE_BYTES_MAX: usize = 64;
    /// Time for which a question's `once` and its first answer are kept.
    ONCE_AGE_MAX: Duration = Duration::from_secs(60);
    /// Questions of one organization whose `once` is kept; the oldest are forgotten first.
    ONCE_PER_ORGANIZATION_MAX: usize = 65_536;
    /// Time by which `until` may be ahead of the sidecar's clock.
    UNTIL_AHEAD_MAX: Duration = Duration::from_secs(60);
    /// Time by which the clock of a peer may differ from the sidecar's before that is counted and logged.
    PEER_CLOCK_OFFSET_MAX: Duration = Duration::from_secs(2);
    /// Questions of one connection that are read before the first of them is answered.
    QUESTIONS_AHEAD_MAX: usize = 16;
    /// Users whose records are prefetched together: an actor and a target for each question that is read ahead.
    PREFETCHED_USERS_MAX: usize = 2 * QUESTIONS_AHEAD_MAX;
    /// Questions of one connection that are answered before other connections get their turn.
    QUESTIONS_PER_TURN_MAX: usize = 256;
    /// Times that one question is judged while reloads overtake it; then it is denied with `overload`.
    JUDGE_AGAIN_MAX: usize = 4;
    /// Kamailio servers to which the sidecar connects.
    EVAPI_PEERS_MAX: usize = 64;
    /// Bytes of answers that wait for a Kamailio to which the sidecar connected; above this the answer is `overload`.
    EVAPI_BUSY_BYTES: usize = 64 * 1024;
    /// Bytes of one write to a Kamailio to which the sidecar connected: whole netstrings that Kamailio reads at once.
    EVAPI_WRITE_BYTES_MAX: usize = 16 * 1024;
    /// Time from the first byte of a question to its last.
    FRAME_TIMEOUT: Duration = Duration::from_secs(2);
    /// Time from the last answer to the peer's end of the connection, for dialects with one question per connection.
    CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
    /// Time for a peer to read one write of answers; for evapi, the time without progress. Then the peer is
    /// disconnected.
    WRITE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time without input after which a connection is probed by TCP keepalive.
    KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
    /// Time for a connection to Kamailio to be established.
    DIAL_TIMEOUT: Duration = Duration::from_secs(1);
    /// First pause before the sidecar connects to an unreachable Kamailio again; every further pause is twice as long.
    REDIAL_PAUSE_MIN: Duration = Duration::from_millis(50);
    /// Longest pause before the sidecar connects to an unreachable Kamailio again.
    REDIAL_PAUSE_MAX: Duration = Duration::from_secs(1);
    /// Pause after an accept failed for want of a file descriptor.
    ACCEPT_PAUSE: Duration = Duration::from_millis(20);

    // Sessions, supervisions and calls --------------------------------------------------------------------------------

    /// Login sessions of one user.
    LOGINS_PER_USER_MAX: usize = QUEUES_PER_USER_MAX;
    /// Login sessions of one organization.
    LOGINS_PER_ORGANIZATION_MAX: usize = 16_000_000;
    /// Running supervisions of one organization; a further one is denied with `overload`.
    SUPERVISIONS_PER_ORGANIZATION_MAX: usize = 65_536;
    /// Supervisions of one organization that a reload ended and that are still listed; the oldest are dropped first.
    SUPERVISIONS_REVOKED_LISTED_MAX: usize = 256;
    /// Supervisions of one organization that a reload or an operator ended and that links remember, to hang up channels
    /// that begin to listen afterwards; the oldest are forgotten first.
    SUPERVISIONS_WITHDRAWN_MAX: usize = 256;
    /// Seconds after which a supervision counts as ended if the PBX did not report its end: 4 hours.
    SUPERVISION_SECONDS_MAX: u32 = 4 * 3_600;
    /// Known calls of one organization; the report of a further one is denied with `overload`.
    CALLS_PER_ORGANIZATION_MAX: usize = 131_072;
    /// Seconds after which a call counts as ended if the PBX did not report its end: one day.
    CALL_SECONDS_MAX: u32 = 24 * 3_600;
    /// Seconds for which a call that is transferred may be replaced by the user whom it was offered to.
    TRANSFER_OFFER_SECONDS: u32 = 30;
    /// Transfers and replacements of one call whose answers are not sent yet, and one more; a further one is denied
    /// with `overload`.
    OPEN_TRANSFERS_PER_CALL_MAX: usize = 16;
    /// Seconds before its end from which on a lease counts as ending soon: 5 minutes.
    LEASE_ENDS_SOON_SECONDS: u32 = 5 * 60;
    /// Partitions of the session table of one organization: listing all sessions locks one partition at a time.
    SESSION_TABLE_PARTS: usize = 64;
    /// Changes that wait in the commit queue; further changes are refused.
    PENDING_CHANGES_MAX: usize = 65_536;
    /// Time after which an answer is refused because the store has not committed its change.
    COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
    /// Bytes of a backup, about 300 for each login session: 100,000 sessions take 30 MB.
    BACKUP_BYTES_MAX: usize = 256 * 1024 * 1024;
    /// Organizations that the message of a refused backup names.
    BACKUP_DIFFERENCES_MAX: usize = 10;
    /// Time in which the backup that is to be restored has to arrive at the sidecar.
    RESTORE_BODY_TIMEOUT: Duration = Duration::from_secs(60);
    /// Time that a restore waits until its sessions are on disk.
    RESTORE_COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
    /// Time that `backup` and `restore` wait for the running sidecar.
    BACKUP_CLIENT_TIMEOUT: Duration = Duration::from_secs(120);
    /// Pause between two attempts to write to a session store or an audit log that failed.
    STORE_RETRY_INTERVAL: Duration = Duration::from_millis(500);
    /// How often the place of the session store is checked: whether its file is still there.
    STORE_CHECK_INTERVAL: Duration = Duration::from_millis(500);
    /// How often the time is stored while a lease runs and nothing else is. Over a boot of the machine, a wall clock
    /// that was set back by less than this is not noticed.
    STORE_TIME_INTERVAL: Duration = Duration::from_secs(10);
    /// Records of the session store that the start passes between threads at once.
    RECORDS_PER_CHUNK: usize = 1_024;
    /// Chunks of records that the start has read and not yet restored; about 400 KB each.
    RECORD_CHUNKS_AHEAD_MAX: usize = 4;
    /// Changes of one organization in the change feed, from which a watcher can resume.
    CHANGE_FEED_CHANGES_MAX: usize = 16_384;
    /// Changes that one write sends to a watcher.
    WATCH_CHANGES_PER_WRITE_MAX: usize = 256;

    // Links to PBXs ---------------------------------------------------------------------------------------------------

    /// Time from the beginning of a login session by phone until its member must have been seen.
    MEMBER_UNCONFIRMED_MAX: Duration = Duration::from_secs(10);
    /// Age of a change of a user's login sessions up to which links leave that user's members alone.
    MEMBER_CHANGE_PENDING_MAX: Duration = Duration::from_secs(1);
    /// Steps in one queue that no share bounds.
    UNDO_STEPS_UNSHARED_MAX: u64 = 3;
    /// Seconds after a restart, or a restored backup, in which a PBX has to show that a supervision goes on.
    SUPERVISION_RESTORED_SECONDS_MAX: u32 = 30;
    /// Time after which a channel that stopped to listen has ended its supervision.
    SUPERVISION_STOP_GRACE: Duration = Duration::from_secs(2);
    /// Time from the end of a supervision until a link hangs its channel up: a recheck of the dialplan asks anew.
    SUPERVISION_REVOKED_PAUSE: Duration = Duration::from_millis(300);
    /// Time from the answer to the listening of a supervision whose dialect names no channel.
    SUPERVISION_CLAIM_MAX: Duration = Duration::from_secs(30);
    /// Steps that a link takes at one member before it looks at others.
    MEMBER_STEPS_MAX: usize = 4;
    /// Pause between the queries for two queues: at most 50 in a second.
    LINK_QUERY_PAUSE: Duration = Duration::from_millis(20);
    /// Members that ended sessions of one user left behind; beyond this the oldest is forgotten.
    LEAVING_PER_USER_MAX: usize = QUEUES_PER_USER_MAX;
    /// Changes of members that wait for the slowest link of an organization; beyond this the link polls everything.
    LINK_CHANGES_WAITING_MAX: usize = 4_096;
    /// Members that a link looks at one by one at a time; beyond that it polls.
    LINK_LOOKS_WAITING_MAX: usize = 1_024;
    /// Time from a change of a session until a link looks at its member: the PBX that asked makes the change itself.
    LINK_CHANGE_PAUSE: Duration = Duration::from_millis(300);
    /// Pause between two attempts of a link at an action that the PBX refused.
    LINK_RETRY_PAUSE: Duration = Duration::from_secs(10);
    /// Commands of operators that wait for one link.
    LINK_COMMANDS_WAITING_MAX: usize = 4;
    /// Time that `links reconcile`, `adopt` and `resume` wait until the link has carried out what it found.
    LINK_COMMAND_CLIENT_TIMEOUT: Duration = Duration::from_secs(600);
    /// Time that a command which ended sessions or supervisions waits for what becomes of them at the PBX.
    MEMBER_OUTCOME_MAX: Duration = Duration::from_secs(2);
    /// Removals and hang-ups of one link that are remembered for the commands that wait for them.
    LINK_RECENT_ACTS_MAX: usize = 1_024;
    /// Refused actions of a link that are kept for operators.
    LINK_REFUSALS_MAX: usize = 16;
    /// Bytes of the name of a link, and of a name in `agents_file` or `queues_file`.
    LINK_NAME_BYTES_MAX: usize = 128;
    /// Rows of `agents_file` or `queues_file`.
    LINK_NAME_TABLE_ROWS_MAX: usize = 1_000_000;
    /// Bytes of `agents_file` or `queues_file`.
    LINK_NAME_TABLE_BYTES_MAX: u64 = 128 * 1024 * 1024;
    /// Largest `poll_interval_seconds`.
    LINK_POLL_SECONDS_MAX: u64 = 3_600;
    /// Largest `undo_max_per_minute`.
    UNDO_PER_MINUTE_LIMIT: u32 = 100_000;
    /// Hints of a PBX that wait for one link; beyond this the link polls everything.
    LINK_HINTS_WAITING_MAX: usize = 4_096;
    /// Time from the hang-up of a channel that listens until a link looks whether the channel is gone.
    HANG_UP_CHECK_PAUSE: Duration = Duration::from_millis(500);
    /// How often this pause doubles for a channel that listens after its hang-up: it ends at 32 s.
    HANG_UP_PAUSE_DOUBLINGS_MAX: u32 = 6;
    /// Hang-ups of one channel that need no word: Asterisk 16 forgets one now and then.
    HANG_UPS_UNSAID_MAX: u32 = 2;
    /// Elements of one list of a PBX, and members of one poll that differ from the sessions or cannot be read.
    LINK_LIST_ITEMS_MAX: usize = 262_144;
    /// Bytes of one answer of a PBX, with the events that come between.
    LINK_LIST_BYTES_MAX: usize = 64 * 1024 * 1024;
    /// Time from a question of a link to the end of the list that answers it.
    LINK_LIST_TIMEOUT: Duration = Duration::from_secs(30);
    /// Bytes of the words of a PBX that operators see, as why it refused a login; further ones are cut off.
    LINK_WORDS_BYTES_MAX: usize = 128;
    /// Members that differ which `queuewarden links show` lists; further ones are counted.
    LINK_DIFFERENCES_SHOWN_MAX: usize = 10_000;
    /// Time from a command of a link to its answer.
    LINK_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
    /// Interval at which an idle link asks whether its PBX is there.
    LINK_PING_INTERVAL: Duration = Duration::from_secs(10);
    /// Links to Asterisk servers, and again links to FreeSWITCH servers.
    LINKS_PER_KIND_MAX: usize = 64;
    /// Bytes of `ca_file` of a link.
    TLS_AUTHORITIES_BYTES_MAX: u64 = 256 * 1024;
    /// Time from connecting to a PBX to being logged in; Asterisk alone delays a refusal by 1 s.
    LINK_LOGIN_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time from an AMI action to its response.
    AMI_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
    /// Longest first pause before a link reconnects; the longest further pause doubles each time.
    LINK_RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
    /// Longest pause before a link reconnects.
    LINK_RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(10);

    // Links to FreeSWITCH ---------------------------------------------------------------------------------------------

    /// Bytes of the lines of one message of the event socket, without its body.
    ESL_HEAD_BYTES_MAX: usize = 64 * 1024;
    /// Bytes of the body of one message of the event socket: the tiers of 1,000 queues with 100 members each.
    ESL_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
    /// Channels that events named, at which a link looks together.
    ESL_CHANNELS_HINTED_MAX: usize = 1_024;
    /// Time after the first look at the listeners in which a listener may have begun before the sidecar started.
    LISTENERS_FIRST_LOOK_MAX: Duration = Duration::from_millis(500);
    /// Pause until a link looks once more at the channels that events named, or that it saw when it connected.
    ESL_RELOOK_PAUSE: Duration = Duration::from_millis(250);
    /// Further looks at a channel whose call was said to begin or to end.
    ESL_CALL_LOOKS: u32 = 4;
    /// Bytes of one command to the event socket.
    ESL_COMMAND_BYTES_MAX: usize = 512;
}

/// Every limit, in the order of the manual.
pub fn all_limits() -> impl Iterator<Item = &'static Limit> {
    [OF_THIS_FILE, AUDIT, PEERS, OPERATION, LOAD].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_sentence_and_a_unit() {
        for limit in all_limits() {
            assert!(limit.sentence().starts_with(char::is_uppercase) && limit.sentence().ends_with('.'), "{limit:?}");
        }
        let of = |name: &str| all_limits().find(|limit| limit.name == name).map(|limit| (limit.value, limit.unit()));
        assert_eq!(of("ACCEPT_PAUSE"), Some((20, "ms")));
        assert_eq!(of("VALUE_BYTES_MAX"), Some((128, "bytes")));
        assert_eq!(of("LEASE_SECONDS_MAX"), Some((2_678_400, "s")));
        assert_eq!(of("ORGANIZATIONS_MAX"), Some((4_096, "")));
    }
}
