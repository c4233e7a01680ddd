//! The bounds of operation: admin listener, log, metrics, reload, stop.

use std::time::Duration;

use super::limit::{Limit, limits};

limits! {
    OPERATION;

    /// Requests that the admin listener serves at once.
    ADMIN_REQUESTS_MAX: usize = 64;
    /// Time without input after which a connection of the admin listener is closed.
    ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
    /// Time that a command waits for the running sidecar.
    ADMIN_CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Bytes of one answer of the running sidecar to a command.
    ADMIN_CLIENT_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
    /// Bytes of the answer of the running sidecar to `queuewarden health`; further ones are not read.
    HEALTH_ANSWER_BYTES_MAX: u64 = 64 * 1024;
    /// Rows of one page of `/sessions` and `/supervisions`.
    OPERATOR_PAGE_ROWS_MAX: usize = 1_000;
    /// Answers of one page of `/what` and `/who`.
    SURVEY_PAGE_ANSWERS_MAX: usize = 1_000;
    /// Questions that one page of `/what` and `/who` judges.
    SURVEY_PAGE_QUESTIONS_MAX: u64 = 1_000_000;
    /// Organizations that one self test asks about; the next self test continues with others.
    SELF_TEST_QUESTIONS_MAX: usize = 64;
    /// Interval at which the sidecar tests itself by deciding questions.
    SELF_TEST_INTERVAL: Duration = Duration::from_millis(500);
    /// Age of the last successful self test at which the sidecar counts as not deciding.
    SELF_TEST_AGE_MAX: Duration = Duration::from_secs(5);
    /// Lines of the log that wait for the reader of standard error; further lines are dropped and counted.
    LOG_LINES_WAITING_MAX: usize = 8_192;
    /// Bytes of one value in a line of the log; the rest of a longer value is cut off.
    LOG_VALUE_BYTES_MAX: usize = 2_048;
    /// Bytes of a filter for the log.
    LOG_FILTER_BYTES_MAX: usize = 256;
    /// Decisions that are logged in one second; further decisions are counted.
    LOG_DECISIONS_PER_SECOND_MAX: u32 = 1_000;
    /// Errors of one peer that are logged in one `log_peer_interval`; further errors are counted.
    LOG_ERRORS_PER_PEER_MAX: u32 = 5;
    /// Errors of all peers together that are logged in one `log_peer_interval`; further errors are counted.
    LOG_ERRORS_MAX: u32 = 100;
    /// Peers whose errors are counted separately, for the log and for the audit log; the errors of further peers share
    /// one count.
    ERROR_QUOTA_PEERS_MAX: usize = 1_024;
    /// Interval over which the errors of a peer are counted; at its end the number of unlogged errors is logged.
    LOG_PEER_INTERVAL: Duration = Duration::from_secs(10);
    /// Queues with a metric series of their own; `sessions_by_queue_max` cannot be larger.
    METRIC_QUEUES_MAX: u64 = 10_000;
    /// Interval at which the metric recorder drops old samples.
    METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
    /// Shortest time between two loads of the configuration; further SIGHUPs wait.
    RELOAD_INTERVAL_MIN: Duration = Duration::from_secs(1);
    /// Time for every connection to switch to a new policy.
    PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time from the end of `drain_delay_seconds` to the end of the last connection.
    DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
    /// Largest setting for the seconds during which `/readyz` announces a stop before it begins.
    DRAIN_DELAY_SECONDS_MAX: u64 = 60;
}
