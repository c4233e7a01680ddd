//! The bounds of the load generator.

use std::time::Duration;

use super::limit::{Limit, limits};

limits! {
    LOAD;

    /// Questions that the load generator prepares.
    LOAD_QUESTIONS_MAX: usize = 262_144;
    /// Users of one organization in whose name the load generator asks.
    LOAD_ACTORS_MAX: usize = 65_536;
    /// Connections of the load generator.
    LOAD_CONNECTIONS_MAX: usize = 20_000;
    /// Unanswered questions of one connection of the load generator without `--rate`.
    LOAD_DEPTH_MAX: usize = 1_024;
    /// Unanswered questions of one connection of the load generator with `--rate`.
    LOAD_BACKLOG_MAX: usize = 65_536;
    /// Questions in one second of the load generator.
    LOAD_QUESTIONS_PER_SECOND_MAX: u32 = 10_000_000;
    /// Seconds that the load generator runs.
    LOAD_SECONDS_MAX: u64 = 86_400;
    /// Time for a connection of the load generator to be established.
    LOAD_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time after which the load generator counts an answer as lost.
    LOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
    /// Longest latency that the load generator records; a longer latency counts as this.
    LOAD_LATENCY_MAX: Duration = Duration::from_secs(60);
    /// Bytes that the load generator reads at once.
    LOAD_READ_BYTES: usize = 64 * 1024;
    /// Bytes of one answer to the load generator.
    LOAD_ANSWER_BYTES_MAX: usize = 16 * 1024;
    /// Wrong or missing answers that the load generator prints as examples.
    LOAD_EXAMPLES_MAX: usize = 5;
}
