//! The bounds that a peer or an operator can meet. Every bound of the process is in [`crate::limits`].

use std::time::Duration;

use crate::cli::topics::Table;
use crate::cli::topics::keys::grouped;
use crate::limits;

fn count(number: usize, unit: &str) -> String {
    format!("{} {unit}", grouped(number as u64)).trim_end().to_owned()
}

fn time(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{} s", grouped(duration.as_secs()))
    } else {
        format!("{} ms", duration.as_millis())
    }
}

pub(super) fn limits() -> Table {
    let bounds = [wire(), connections(), state(), times(), log_and_files()].concat();
    let rows = bounds.into_iter().map(|(bound, value)| vec![bound.to_owned(), value]);
    Table::new("Bounds", &["Bound", "Value"], rows)
}

fn wire() -> Vec<(&'static str, String)> {
    vec![
        ("A line of the line dialect, its LF included", count(limits::LINE_BYTES_MAX, "bytes")),
        ("The id of a request of the line dialect", count(limits::REQUEST_ID_BYTES_MAX, "bytes")),
        ("A value, in every dialect", count(limits::VALUE_BYTES_MAX, "bytes")),
        ("A FastAGI environment", count(limits::AGI_ENVIRONMENT_BYTES_MAX, "bytes")),
        ("Lines of a FastAGI environment", count(limits::AGI_ENVIRONMENT_LINES_MAX, "")),
        ("A header block from FreeSWITCH", count(limits::FREESWITCH_BLOCK_BYTES_MAX, "bytes")),
        ("The JSON in a netstring from Kamailio", count(limits::NETSTRING_BYTES_MAX, "bytes")),
        ("The id of a JSON-RPC request", count(limits::JSONRPC_ID_BYTES_MAX, "bytes")),
        (
            "Questions of one connection before other connections have their turn",
            count(limits::QUESTIONS_PER_TURN_MAX, ""),
        ),
    ]
}

fn connections() -> Vec<(&'static str, String)> {
    vec![
        ("Connections of all dialects, by default", count(limits::CONNECTIONS_DEFAULT, "")),
        ("Connections of all dialects, at most", count(limits::CONNECTIONS_MAX, "")),
        (
            "Connections over the limit that get an answer at once; further ones are reset",
            count(limits::REFUSALS_AT_ONCE_MAX, ""),
        ),
        ("Connections that wait to be accepted", count(limits::LISTEN_BACKLOG as usize, "")),
        ("Connections of the admin listener", count(limits::ADMIN_REQUESTS_MAX, "")),
        ("Kamailios in `[connect] evapi`", count(limits::EVAPI_PEERS_MAX, "")),
        ("Unread answers to an evapi peer, from which on it gets `overload`", count(limits::EVAPI_BUSY_BYTES, "bytes")),
        ("One write to an evapi peer", count(limits::EVAPI_WRITE_BYTES_MAX, "bytes")),
        ("Answers of one page of `/what` and `/who`", count(limits::SURVEY_PAGE_ANSWERS_MAX, "")),
        ("Rows of one page of `/sessions` and `/supervisions`", count(limits::OPERATOR_PAGE_ROWS_MAX, "")),
    ]
}

fn state() -> Vec<(&'static str, String)> {
    vec![
        ("Supervisions of an organization at once", count(limits::SUPERVISIONS_PER_ORGANIZATION_MAX, "")),
        ("Calls of an organization that are known at once", count(limits::CALLS_PER_ORGANIZATION_MAX, "")),
        ("A supervision whose end is not reported", count(limits::SUPERVISION_SECONDS_MAX as usize, "s")),
        ("A call whose end is not reported", count(limits::CALL_SECONDS_MAX as usize, "s")),
        ("Changes of an organization that a watcher can resume from", count(limits::CHANGE_FEED_CHANGES_MAX, "")),
        ("Changes that wait for the disk", count(limits::PENDING_CHANGES_MAX, "")),
        ("Queue members that wait to be removed by one AMI link", count(limits::AMI_REMOVALS_WAITING_MAX, "")),
        ("Audit lines in memory that no answer waits for", count(limits::AUDIT_BUFFER_BYTES_MAX, "bytes")),
    ]
}

fn times() -> Vec<(&'static str, String)> {
    vec![
        ("The rest of a question, after its first byte", time(limits::FRAME_TIMEOUT)),
        ("The peer's end of the connection, after the last answer", time(limits::CLOSE_TIMEOUT)),
        ("A peer that does not read its answers is disconnected after", time(limits::WRITE_TIMEOUT)),
        ("An idle connection is probed after", time(limits::KEEPALIVE_IDLE)),
        ("An answer that waits for the disk is refused after", time(limits::COMMIT_TIMEOUT)),
        ("A failed store is tried again every", time(limits::STORE_RETRY_INTERVAL)),
        ("Audit lines that no answer waits for are written every", time(limits::AUDIT_FLUSH_INTERVAL)),
        ("A removal that waits for its Asterisk is dropped after", time(limits::AMI_REMOVAL_AGE_MAX)),
        ("Without a decision for this long, `/livez` and `/readyz` fail", time(limits::SELF_TEST_AGE_MAX)),
        ("From SIGTERM, after `drain_delay_seconds`, to the exit", time(limits::DRAIN_TIMEOUT)),
        ("Between two loads of the configuration", time(limits::RELOAD_INTERVAL_MIN)),
    ]
}

fn log_and_files() -> Vec<(&'static str, String)> {
    vec![
        ("Decisions in the log in one second", count(limits::LOG_DECISIONS_PER_SECOND_MAX as usize, "")),
        ("Errors of one peer in the log in 10 s", count(limits::LOG_ERRORS_PER_PEER_MAX as usize, "")),
        ("Errors of all peers in the log in 10 s", count(limits::LOG_ERRORS_MAX as usize, "")),
        ("Lines of the log that wait for its reader", count(limits::LOG_LINES_WAITING_MAX, "")),
        ("Problems that one load lists", count(limits::PROBLEMS_REPORTED_MAX, "")),
        ("A TOML file", format!("{} bytes", grouped(limits::TOML_FILE_BYTES_MAX))),
        ("A CSV file", format!("{} bytes", grouped(limits::CSV_FILE_BYTES_MAX))),
    ]
}
