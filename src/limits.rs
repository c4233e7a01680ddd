//! Every hard bound of the sidecar, with its unit in its name.
//!
//! An operator may lower some of these in the configuration; nobody can raise them without reading this file. The
//! relations between them are asserted when the crate compiles, so a bound that would break another cannot be
//! committed.

use std::time::Duration;

// What may be loaded -------------------------------------------------------------------------------------------------

/// Organizations in one process.
pub const ORGANIZATIONS_MAX: usize = 4_096;
/// Users of one organization.
pub const USERS_PER_ORGANIZATION_MAX: usize = 8_000_000;
/// Queues of one organization; a queue id is 16 bits wide.
pub const QUEUES_PER_ORGANIZATION_MAX: usize = 65_535;
/// Groups of one organization; a group id is 16 bits wide.
pub const GROUPS_PER_ORGANIZATION_MAX: usize = 65_535;
/// Queues that one user may serve, and therefore queues that one decision may be about.
pub const QUEUES_PER_USER_MAX: usize = 256;
/// Feature codes of one organization, after its preset and its shorthands are written out.
pub const FEATURE_CODES_PER_ORGANIZATION_MAX: usize = 256;
/// Roles of one role model; a set of roles is 16 bits wide.
pub const ROLES_PER_MODEL_MAX: usize = 16;
/// Settings of one role model; a set of settings is 64 bits wide.
pub const SETTINGS_PER_MODEL_MAX: usize = 64;
/// Actions of one role model.
pub const ACTIONS_PER_MODEL_MAX: usize = 256;
/// Grants of one role model.
pub const GRANTS_PER_MODEL_MAX: usize = 4_096;
/// Bytes of one TOML file. Larger organizations name a CSV file for their users.
pub const TOML_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a TOML file of which every syntax error is told; of a larger one only the first.
pub const TOML_RECOVERED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one CSV file.
pub const CSV_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of one line of a CSV file.
pub const CSV_LINE_BYTES_MAX: usize = 64 * 1024;
/// Problems that one load reports; the rest is counted, so a broken million-line file stays readable.
pub const PROBLEMS_REPORTED_MAX: usize = 100;
/// Bytes of an id in the configuration.
pub const ID_BYTES_MAX: usize = 64;
/// Digits of an extension, a queue number or the argument of a feature code.
pub const NUMBER_DIGITS_MAX: usize = 16;
/// Characters of a feature code's pattern.
pub const FEATURE_CODE_BYTES_MAX: usize = 64;
/// Bytes of the file that holds the token of the line dialect.
pub const TOKEN_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// Bytes of a secret of AMI.
pub const AMI_SECRET_BYTES_MAX: usize = 128;
/// Bytes of a user name of AMI.
pub const AMI_USERNAME_BYTES_MAX: usize = 64;
/// Bytes of the pattern of a member's interface or of a queue's name in Asterisk.
pub const AMI_PATTERN_BYTES_MAX: usize = 64;

// What may come over the wire ----------------------------------------------------------------------------------------

/// Bytes of one value, in every dialect.
pub const VALUE_BYTES_MAX: usize = 128;
/// Bytes of one line of the line dialect, its LF included.
pub const LINE_BYTES_MAX: usize = 1_024;
/// Bytes of one answer of the line dialect that a command takes: every queue of a user, and the rest.
pub const LINE_ANSWER_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of the id of a request.
pub const REQUEST_ID_BYTES_MAX: usize = 16;
/// Bytes of one FastAGI environment.
pub const AGI_ENVIRONMENT_BYTES_MAX: usize = 16 * 1024;
/// Lines of one FastAGI environment.
pub const AGI_ENVIRONMENT_LINES_MAX: usize = 200;
/// Bytes of one command line to Asterisk; it runs the rest of a longer one as the next command.
pub const AGI_COMMAND_BYTES_MAX: usize = 8_191;
/// Bytes of one reply line from Asterisk after the verdict; a longer one ends the connection.
pub const AGI_REPLY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the first line of AMI, its CR LF included.
pub const AMI_BANNER_BYTES_MAX: usize = 64;
/// Bytes of one line of AMI, without its CR LF.
pub const AMI_LINE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of one response or event of AMI.
pub const AMI_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one value that is sent to AMI.
pub const AMI_VALUE_BYTES_MAX: usize = 128;
/// Bytes of one FreeSWITCH header block, its empty line included; about 4 KiB are usual.
pub const FREESWITCH_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one reply line from FreeSWITCH after the verdict; a longer one ends the connection.
pub const FREESWITCH_REPLY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the JSON in one netstring from Kamailio.
pub const NETSTRING_BYTES_MAX: usize = 4_096;
/// Bytes of the id of a JSON-RPC request, as it is written.
pub const JSONRPC_ID_BYTES_MAX: usize = 64;
/// Bytes of answers that wait for one peer to read them; reading from it stops above this.
pub const ANSWER_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Bytes that one read may add to a connection's buffer.
pub const READ_BUFFER_BYTES_MAX: usize = 32 * 1024;
/// How much less than others the thread of a reload may run while there is not enough processor time for all: `nice`.
pub const RELOAD_NICENESS: i32 = 5;
/// Bytes of a buffer that a busy connection keeps between two questions.
pub const BUFFER_KEPT_BYTES_MAX: usize = 16 * 1024;
/// A connection that says nothing for so long gives back what a busy one had of buffers.
pub const LARGE_BUFFER_KEPT_FOR: Duration = Duration::from_secs(1);
/// Questions of one connection that are read before the first of them is answered.
pub const QUESTIONS_AHEAD_MAX: usize = 16;
/// Users whose rows are fetched together: an actor and a target of each of those questions.
pub const FETCHED_TOGETHER_MAX: usize = 2 * QUESTIONS_AHEAD_MAX;
/// Questions that one connection may have answered before it lets others run.
pub const QUESTIONS_PER_TURN_MAX: usize = 256;

// What may be at once ------------------------------------------------------------------------------------------------

/// Connections of all dialects together, at most; `[limits] connections_max` may lower it.
pub const CONNECTIONS_MAX: usize = 100_000;
/// Connections of all dialects together, unless the configuration says otherwise.
pub const CONNECTIONS_DEFAULT: usize = 10_000;
/// Connections over the limit that are told so at the same time; further ones are reset.
pub const REFUSALS_AT_ONCE_MAX: usize = 1_024;
/// Connections that wait to be accepted. Large, because Asterisk waits 2 s for a dropped SYN.
pub const LISTEN_BACKLOG: u32 = 4_096;
/// Kamailios that are dialed.
pub const EVAPI_PEERS_MAX: usize = 64;
/// Bytes of answers that wait for a Kamailio that we dialed; above this it hears that we are busy.
pub const EVAPI_BUSY_BYTES: usize = 64 * 1024;
/// Bytes of one write to a Kamailio that we dialed: whole netstrings, fewer bytes than Kamailio reads at once.
pub const EVAPI_WRITE_BYTES_MAX: usize = 16 * 1024;
/// Login sessions of one user.
pub const LOGINS_PER_USER_MAX: usize = QUEUES_PER_USER_MAX;
/// Login sessions of one organization.
pub const LOGINS_PER_ORGANIZATION_MAX: usize = 16_000_000;
/// Supervisions of one organization that run at once.
pub const SUPERVISIONS_PER_ORGANIZATION_MAX: usize = 65_536;
/// Supervisions of one organization that a reload ended and that are still listed; the oldest go first.
pub const SUPERVISIONS_REVOKED_LISTED_MAX: usize = 256;
/// Seconds after which a supervision is taken to have ended, if nobody reported it: 4 hours.
pub const SUPERVISION_SECONDS_MAX: u32 = 4 * 3_600;
/// Calls of one organization that are known at once.
pub const CALLS_PER_ORGANIZATION_MAX: usize = 131_072;
/// Seconds after which a call is taken to have ended, if nobody reported it: one day.
pub const CALL_SECONDS_MAX: u32 = 24 * 3_600;
/// Changes that wait for the disk; further ones are refused.
pub const PENDING_CHANGES_MAX: usize = 65_536;
/// Bytes of audit lines that wait for the writer and that no answer waits for; of more, lines are dropped and counted.
pub const AUDIT_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one entry of the audit log before it is a line.
pub const AUDIT_DRAFT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one line of the audit log, its LF included.
pub const AUDIT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes after which a file of the audit log may be told to be followed by the next: 1 GiB.
pub const AUDIT_ROTATION_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Seconds after which a file of the audit log may be told to be followed by the next: 31 days.
pub const AUDIT_ROTATION_SECONDS_MAX: u64 = 31 * 24 * 3_600;
/// Seconds for which the audit log may be told to keep its files: 10 years.
pub const AUDIT_RETENTION_SECONDS_MAX: u64 = 3_660 * 24 * 3_600;
/// Bytes that the audit log may be told to keep: 64 TiB.
pub const AUDIT_RETENTION_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024 * 1024;
/// Allowed questions that change nothing of which one may be told to be written.
pub const AUDIT_SAMPLE_MAX: u64 = 1_000_000;
/// Lines a second that allowed questions that change nothing may be told to have.
pub const AUDIT_PLAIN_ALLOWS_PER_SECOND_MAX: u64 = 1_000_000;
/// Changes of one organization that a watcher can still be told of.
pub const CHANGE_FEED_CHANGES_MAX: usize = 16_384;
/// Changes that a watcher is told of in one write.
pub const WATCH_CHANGES_PER_WRITE_MAX: usize = 256;
/// Questions that a load draws ahead.
pub const LOAD_QUESTIONS_MAX: usize = 262_144;
/// Users of an organization that a load asks for.
pub const LOAD_ACTORS_MAX: usize = 65_536;
/// Connections of a load.
pub const LOAD_CONNECTIONS_MAX: usize = 20_000;
/// Questions of one connection of a load that wait for their answers, where the next waits for the last.
pub const LOAD_DEPTH_MAX: usize = 1_024;
/// Questions of one connection of a load that wait for their answers, where they are asked by the clock.
pub const LOAD_BACKLOG_MAX: usize = 65_536;
/// Questions a second of a load.
pub const LOAD_RATE_MAX: u32 = 10_000_000;
/// Seconds of a load.
pub const LOAD_SECONDS_MAX: u64 = 86_400;
/// Of a load: to be connected.
pub const LOAD_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a load: an answer that takes longer is lost.
pub const LOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest latency that a load tells from a longer one.
pub const LOAD_LATENCY_MAX: Duration = Duration::from_secs(60);
/// Bytes that a load reads at once.
pub const LOAD_READ_BYTES: usize = 64 * 1024;
/// Bytes of one answer to a load.
pub const LOAD_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Things that went wrong which a load shows.
pub const LOAD_EXAMPLES_MAX: usize = 5;
/// Records that the start hands from the thread that reads them to the one that takes them up, at once.
pub const RECORDS_PER_CHUNK: usize = 1_024;
/// Batches of records that were read and wait to be taken up; some 400 KB each.
pub const BATCHES_AHEAD_MAX: usize = 4;
/// Parts of an organization's session table: a look at all sessions holds the table for one part at a time.
pub const SESSION_TABLE_PARTS: usize = 64;
/// Links to Asterisks.
pub const AMI_LINKS_MAX: usize = 64;
/// Queue members that wait to be removed by one link; of more the oldest goes.
pub const AMI_REMOVALS_WAITING_MAX: usize = 65_536;
/// Times that Asterisk is asked to remove one member, or to add it back.
pub const AMI_ATTEMPTS_MAX: u32 = 5;
/// Times that one question is judged again because a reload or a race overtook it.
pub const JUDGE_AGAIN_MAX: usize = 4;
/// Seconds that a lease may last: 31 days.
pub const LEASE_SECONDS_MAX: u32 = 31 * 24 * 3_600;
/// Seconds before its end from which on a lease is counted as ending soon: 5 minutes.
pub const LEASE_ENDS_SOON_SECONDS: u32 = 5 * 60;
/// Queues that may have a series of their own in the metrics.
pub const METRIC_QUEUES_MAX: u64 = 10_000;

/// Names by which the admin listener may be called.
pub const ADMIN_HOSTS_MAX: usize = 64;
/// Organizations that one proof of decisions asks about; the next proof goes on with others.
pub const SELF_TEST_QUESTIONS_MAX: usize = 64;
/// Lines of the log that wait for whoever reads it; further ones are counted.
pub const LOG_LINES_WAITING_MAX: usize = 8_192;
/// Bytes of one value in a line of the log; the rest of a longer one is left out.
pub const LOG_VALUE_BYTES_MAX: usize = 2_048;
/// Bytes of a filter of the log.
pub const LOG_FILTER_BYTES_MAX: usize = 256;
/// Decisions that the log tells in one second; further ones are counted.
pub const LOG_DECISIONS_PER_SECOND_MAX: u32 = 1_000;
/// What one peer did wrong that the log tells in [`LOG_PEER_INTERVAL`]; further errors of that peer are counted.
pub const LOG_ERRORS_PER_PEER_MAX: u32 = 5;
/// What all peers together did wrong that the log tells in [`LOG_PEER_INTERVAL`]; further errors are counted.
pub const LOG_ERRORS_MAX: u32 = 100;
/// Peers whose errors are counted apart; the rest share one count.
pub const LOG_PEERS_MAX: usize = 1_024;
/// Bytes of one problem of the configuration; the rest of a longer one is left out.
pub const PROBLEM_BYTES_MAX: usize = 1_024;

// How long anything may take -----------------------------------------------------------------------------------------

/// From the first byte of a frame to its last.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(2);
/// From the verdict to the peer's end of the connection, for dialects that ask once a connection.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Before a Kamailio that cannot be reached is dialed again, the first time; each further time twice as long.
pub const REDIAL_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Before a Kamailio that cannot be reached is dialed again, at most.
pub const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// For a Kamailio that is dialed to accept.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that does not read its answers is cut off after this.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// From SIGTERM to the end of the last connection.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Seconds that a stop may be announced in `/readyz` before it begins.
pub const DRAIN_DELAY_SECONDS_MAX: u64 = 60;
/// Between two proofs that decisions are made.
pub const SELF_TEST_INTERVAL: Duration = Duration::from_millis(500);
/// Without a proof for so long, the sidecar counts as one that decides nothing.
pub const SELF_TEST_AGE_MAX: Duration = Duration::from_secs(5);
/// Over which the errors of a peer are counted, and after which the log says what it left out.
pub const LOG_PEER_INTERVAL: Duration = Duration::from_secs(10);
/// Between two loads of the configuration; a thousand SIGHUPs a second load once a second.
pub const RELOAD_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// For every connection to take up a published policy.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// After an accept failed for want of a file descriptor.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Between two tries to use a store that failed.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Between two visits of the writer to the audit lines that no answer waits for.
pub const AUDIT_FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks for files of the audit log whose time is over.
pub const AUDIT_MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that changed something is refused if the store has not taken the change after this.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two clean-ups of the metric recorder.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// An idle connection is probed after this, so that a dead peer's connection ends.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// From the connection to an Asterisk to being logged in; a refusal alone takes Asterisk a second.
pub const AMI_LOGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// From an action of AMI to its answer.
pub const AMI_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at whether an Asterisk is still there.
pub const AMI_PING_INTERVAL: Duration = Duration::from_secs(10);
/// Before the first attempt to connect to an Asterisk again, at most; each further pause is twice as long.
pub const AMI_RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Before any attempt to connect to an Asterisk again.
pub const AMI_RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Between two attempts at a removal that Asterisk refused.
pub const AMI_ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
/// A removal that waited longer for its Asterisk is dropped.
pub const AMI_REMOVAL_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Answers of one page of `/what` and `/who`.
pub const SURVEY_PAGE_ANSWERS_MAX: usize = 1_000;
/// Questions that one page of `/what` and `/who` judges.
pub const SURVEY_PAGE_QUESTIONS_MAX: u64 = 1_000_000;
/// A peer of the admin listener that says nothing for this long loses its place.
pub const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Rows of one page of `/sessions` and `/supervisions`.
pub const OPERATOR_PAGE_ROWS_MAX: usize = 1_000;
/// A command waits so long for the running sidecar.
pub const DESK_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer of the running sidecar to a command.
pub const DESK_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests that the admin listener serves at once.
pub const ADMIN_REQUESTS_MAX: usize = 64;

const _: () = {
    assert!(QUEUES_PER_ORGANIZATION_MAX <= u16::MAX as usize, "a queue id is a u16");
    assert!(GROUPS_PER_ORGANIZATION_MAX <= u16::MAX as usize, "a group id is a u16");
    assert!(ORGANIZATIONS_MAX <= u16::MAX as usize, "an organization id is a u16");
    assert!(USERS_PER_ORGANIZATION_MAX < (u32::MAX / 2) as usize, "a user id is a u32 with one bit to spare");
    assert!(ROLES_PER_MODEL_MAX <= 16 && SETTINGS_PER_MODEL_MAX <= 64, "sets of roles and settings are u16 and u64");
    assert!(QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 1) + 64 < AGI_COMMAND_BYTES_MAX, "QW_QUEUES fits one command");
    assert!(
        (QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 1) + LINE_BYTES_MAX) as u64 <= LINE_ANSWER_BYTES_MAX,
        "every answer can be heard"
    );
    assert!(
        QUESTIONS_AHEAD_MAX * (QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 3) + 512) < ANSWER_BUFFER_BYTES_MAX / 2,
        "what was read ahead can be answered within the bound"
    );
    assert!(QUESTIONS_PER_TURN_MAX.is_multiple_of(QUESTIONS_AHEAD_MAX), "a turn is some times what is read ahead");
    assert!(LINE_BYTES_MAX < READ_BUFFER_BYTES_MAX, "a whole line fits the read buffer");
    assert!(AGI_ENVIRONMENT_BYTES_MAX < READ_BUFFER_BYTES_MAX, "a whole environment fits the read buffer");
    assert!(NETSTRING_BYTES_MAX < READ_BUFFER_BYTES_MAX, "a whole netstring fits the read buffer");
    assert!(EVAPI_WRITE_BYTES_MAX < 32_768, "Kamailio reads a whole write at once");
    assert!(EVAPI_BUSY_BYTES < ANSWER_BUFFER_BYTES_MAX, "a busy Kamailio is told so before it is cut off");
    assert!(QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 3) + 512 < EVAPI_WRITE_BYTES_MAX, "an answer fits one write");
    assert!(FREESWITCH_BLOCK_BYTES_MAX < ANSWER_BUFFER_BYTES_MAX, "what one peer says costs less than what it hears");
    assert!(ID_BYTES_MAX <= VALUE_BYTES_MAX, "every id can be asked for");
    assert!(AMI_PATTERN_BYTES_MAX + NUMBER_DIGITS_MAX <= AMI_VALUE_BYTES_MAX, "every interface can be sent");
    assert!(AMI_USERNAME_BYTES_MAX <= AMI_VALUE_BYTES_MAX, "every user name can be sent");
    assert!(AMI_LINE_BYTES_MAX < AMI_MESSAGE_BYTES_MAX, "a whole line fits a message");
    assert!(AMI_RECONNECT_PAUSE_MIN.as_nanos() < AMI_RECONNECT_PAUSE_MAX.as_nanos(), "pauses grow");
    assert!(
        QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 2) + 24 * VALUE_BYTES_MAX < AUDIT_DRAFT_BYTES_MAX,
        "every decision fits"
    );
    assert!(AUDIT_DRAFT_BYTES_MAX < AUDIT_BUFFER_BYTES_MAX, "a whole entry fits the buffer");
    assert!(SELF_TEST_INTERVAL.as_millis() * 4 < SELF_TEST_AGE_MAX.as_millis(), "a late proof is no dead sidecar");
    assert!(LOG_ERRORS_PER_PEER_MAX < LOG_ERRORS_MAX, "one peer leaves room in the log for others");
    assert!(REFUSALS_AT_ONCE_MAX < CONNECTIONS_DEFAULT, "refusing costs less than serving");
};
