//! The log: one event a line, on stderr.
//!
//! A thread of its own writes the lines, so a slow reader of stderr never delays a decision: beyond
//! [`LOG_LINES_WAITING_MAX`] lines are left out and counted. `quota` bounds the lines about errors and decisions. Text
//! from a peer or from a file is always a value, never part of the message, and `format` escapes it.

pub mod filter;
mod format;
pub mod quota;

use std::io;
use std::sync::{Mutex, PoisonError};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::limits::LOG_LINES_WAITING_MAX;
use crate::telephony::closed_list;
pub use filter::{FILTER_DEFAULT, FilterError};
use format::Lines;
use quota::Quota;

closed_list! {
    /// The format of a line.
    Format {
        /// A JSON object.
        Json = "json",
        /// Text for people.
        Text = "text",
    }
}

closed_list! {
    /// Why a line was left out of the log.
    LeftOut {
        /// stderr was not read in time.
        Unread = "unread",
        /// The quota for errors of peers was used up.
        Errors = "errors",
        /// The quota for decisions of that second was used up.
        Decisions = "decisions",
    }
}

/// The log of the process. The default is no log at all, for tests.
#[derive(Debug, Default)]
pub struct Log {
    running: Option<RunningLog>,
    /// The bounds of the lines about errors and decisions.
    pub quota: Quota,
}

#[derive(Debug)]
struct RunningLog {
    filter_handle: reload::Handle<Targets, Registry>,
    format: Format,
    /// The filter of the start.
    started_with: String,
    /// The filter in force.
    current: Mutex<String>,
    /// Counts lines that were left out because stderr was not read in time.
    unread: ErrorCounter,
}

/// Writes the waiting lines when it is dropped.
#[derive(Debug)]
pub struct LogFlush(Option<WorkerGuard>);

impl Drop for LogFlush {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Log {
    /// Starts the log on stderr.
    ///
    /// # Errors
    ///
    /// When the filter is not valid.
    pub fn start(filter: &str, format: Format) -> Result<(Self, LogFlush), FilterError> {
        let (filter_layer, filter_handle) = reload::Layer::new(filter::parse(filter)?);
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_LINES_WAITING_MAX)
            .lossy(true)
            .thread_name("log")
            .finish(io::stderr());
        let unread = writer.error_counter();
        let subscriber = {
            use tracing_subscriber::layer::SubscriberExt;
            let lines =
                tracing_subscriber::fmt::layer().event_format(Lines(format)).with_ansi(false).with_writer(writer);
            Registry::default().with(filter_layer).with(lines)
        };
        // Fails only in a test that runs the server in its own process and has a log already.
        tracing::subscriber::set_global_default(subscriber).ok();
        let (started_with, current) = (filter.to_owned(), Mutex::new(filter.to_owned()));
        let running = RunningLog { filter_handle, format, started_with, current, unread };
        Ok((Self { running: Some(running), quota: Quota::default() }, LogFlush(Some(guard))))
    }

    /// The filter in force; `off` without a log.
    #[must_use]
    pub fn filter(&self) -> String {
        let current = |running: &RunningLog| running.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.running.as_ref().map_or_else(|| "off".to_owned(), current)
    }

    /// The filter of the start; `off` without a log.
    #[must_use]
    pub fn started_with(&self) -> &str {
        self.running.as_ref().map_or("off", |running| &running.started_with)
    }

    /// The format of the lines.
    #[must_use]
    pub fn format(&self) -> Format {
        self.running.as_ref().map_or(Format::Json, |running| running.format)
    }

    /// How many lines were left out since the start, by cause in the order of [`LeftOut::ALL`].
    #[must_use]
    pub fn left_out(&self) -> [u64; LeftOut::ALL.len()] {
        let unread = |running: &RunningLog| u64::try_from(running.unread.dropped_lines()).unwrap_or(u64::MAX);
        let unread = self.running.as_ref().map_or(0, unread);
        [unread, self.quota.errors_left_out(), self.quota.decisions_left_out()]
    }

    /// Puts another filter in force; returns the previous one.
    ///
    /// # Errors
    ///
    /// When the filter is not valid, or there is no log; then nothing changes.
    pub fn set_filter(&self, filter: &str) -> Result<String, FilterError> {
        let parsed = filter::parse(filter)?;
        let no_log = || FilterError::new(filter, "there is no log");
        let running = self.running.as_ref().ok_or_else(no_log)?;
        // Locked until the filter is in force, so that `current` is never wrong.
        let mut current = running.current.lock().unwrap_or_else(PoisonError::into_inner);
        running.filter_handle.reload(parsed).map_err(|_| no_log())?;
        Ok(std::mem::replace(&mut *current, filter.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_log_the_filter_is_off_and_cannot_change() {
        let log = Log::default();
        assert_eq!((&*log.filter(), log.left_out()), ("off", [0; 3]));
        assert!(log.set_filter("debug").is_err());
    }
}
