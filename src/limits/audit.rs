//! The limits of the audit log: its buffers, files, quotas and witness, and the clock that it trusts.

use std::time::Duration;

use super::limit::{Limit, limits};

limits! {
    AUDIT;

    /// Bytes of audit lines that wait for the writer and that no answer waits for; further lines are dropped and
    /// counted.
    AUDIT_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Bytes of one audit record before it is encoded as a line.
    AUDIT_RECORD_BYTES_MAX: usize = 16 * 1024;
    /// Bytes of one line of the audit log, including its LF.
    AUDIT_LINE_BYTES_MAX: usize = 64 * 1024;
    /// Largest setting for the bytes of one file of the audit log: 1 GiB.
    AUDIT_ROTATION_BYTES_MAX: u64 = 1024 * 1024 * 1024;
    /// Largest setting for the seconds that one file of the audit log covers: 31 days.
    AUDIT_ROTATION_SECONDS_MAX: u64 = 31 * 24 * 3_600;
    /// Largest setting for the seconds that files of the audit log are kept: 10 years.
    AUDIT_RETENTION_SECONDS_MAX: u64 = 3_660 * 24 * 3_600;
    /// Largest setting for the bytes of all files of the audit log: 64 TiB.
    AUDIT_RETENTION_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024 * 1024;
    /// Largest sampling setting: of this many allowed questions that change nothing, one is written to the audit log.
    AUDIT_SAMPLE_MAX: u64 = 1_000_000;
    /// Largest setting for the allowed questions that change nothing and are written to the audit log in one second.
    AUDIT_PLAIN_ALLOWS_PER_SECOND_MAX: u64 = 1_000_000;
    /// How far the time of a line may be before that of an earlier line of the same file of the audit log; behind a
    /// clock that is set back further, the next line begins a file. `audit tail` and `export` rely on it.
    AUDIT_TIME_BACK_MAX: Duration = Duration::from_secs(10);
    /// Errors of one peer that are written to the audit log in one `audit_error_interval`; of further errors, the
    /// number is written.
    AUDIT_ERRORS_PER_PEER_MAX: u32 = 200;
    /// Errors of all peers together that are written to the audit log in one `audit_error_interval`; of further errors,
    /// the number is written.
    AUDIT_ERRORS_MAX: u32 = 2_000;
    /// Interval over which the errors of a peer are counted for the audit log; at its end the number of unwritten
    /// errors is written.
    AUDIT_ERROR_INTERVAL: Duration = Duration::from_secs(10);
    /// Lines that one actor writes to `record` of the audit log in one `audit_actor_interval`; further lines go to
    /// `decisions`, and their number is written.
    AUDIT_RECORD_LINES_PER_ACTOR_MAX: u16 = 1_000;
    /// Interval over which the lines of an actor in `record` are counted.
    AUDIT_ACTOR_INTERVAL: Duration = Duration::from_secs(3_600);
    /// Actors with more lines than their share whose numbers are written by name; the others share one number.
    AUDIT_ACTORS_NAMED_MAX: usize = 1_000;
    /// Bytes of lines of `record` that wait for the writer and that no answer waits for; further lines are dropped and
    /// counted.
    AUDIT_RECORD_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Interval at which `decisions` gets the last line of `record`.
    AUDIT_RECORD_HEAD_INTERVAL: Duration = Duration::from_secs(10);
    /// Step of the wall clock against the time since the boot above which the clock is suspect: no file of the audit
    /// log is then removed because of its age.
    CLOCK_JUMP_MAX: Duration = Duration::from_secs(300);
    /// Interval within which many small steps of the wall clock count as one.
    CLOCK_BASELINE_INTERVAL: Duration = Duration::from_secs(3_600);
    /// Time after a boot in which no file of the audit log is removed because of its age: a time service may still set
    /// the clock.
    CLOCK_SETTLE_TIME: Duration = Duration::from_secs(600);
    /// Interval at which the last trusted reading of the clocks is stored in the folder of the audit log.
    CLOCK_STORE_INTERVAL: Duration = Duration::from_secs(10);
    /// Denials with one reason of one peer that are written to the audit log in one `audit_error_interval`; of further
    /// denials, the number is written.
    AUDIT_DENIALS_PER_PEER_MAX: u32 = 500;
    /// Denials of all peers together that are written to the audit log in one `audit_error_interval`; of further
    /// denials, the number is written.
    AUDIT_DENIALS_MAX: u32 = 10_000;
    /// Time that a witness of the audit log has to take one line; a command that takes longer is killed.
    WITNESS_TIMEOUT: Duration = Duration::from_secs(10);
    /// Largest setting for the seconds between two lines for the witness of the audit log: one day.
    WITNESS_INTERVAL_SECONDS_MAX: u64 = 24 * 3_600;
    /// Bytes of one line of a witness.
    WITNESS_LINE_BYTES_MAX: usize = 1_024;
    /// Interval at which audit lines that no answer waits for are written.
    AUDIT_FLUSH_INTERVAL: Duration = Duration::from_millis(200);
    /// Interval at which files of the audit log beyond their retention are deleted.
    AUDIT_MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
}
