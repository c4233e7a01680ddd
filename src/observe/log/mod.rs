//! The log: one event a line, on stderr.
//!
//! A thread of its own writes the lines, so a slow reader of stderr never delays a decision: beyond
//! [`LOG_LINES_WAITING_MAX`] lines are left out and counted. `quota` bounds the lines about errors and decisions. Text
//! from a peer or from a file is always a value, never part of the message, and `format` escapes it.

mod format;
pub mod quota;

use std::io;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{EnvFilter, reload};

use crate::limits::{LOG_FILTER_BYTES_MAX, LOG_LINES_WAITING_MAX};
use crate::telephony::closed_list;
use format::Lines;
use quota::Quota;

/// The filter without `QUEUEWARDEN_LOG`.
pub const FILTER_DEFAULT: &str = "info";

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

/// A filter of the log that is not valid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{filter}` is no filter of the log: {problem}\n  help: warn, info, debug or trace; or by module, as in queuewarden=debug,warn"
)]
pub struct FilterError {
    filter: String,
    problem: String,
}

/// The log of the process. The default is no log at all, for tests.
#[derive(Debug, Default)]
pub struct Log {
    running: Option<Running>,
    /// The bounds of the lines about errors and decisions.
    pub quota: Quota,
}

#[derive(Debug)]
struct Running {
    filter_handle: reload::Handle<EnvFilter, Registry>,
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
pub struct Flush(Option<WorkerGuard>);

impl Drop for Flush {
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
    pub fn start(filter: &str, format: Format) -> Result<(Self, Flush), FilterError> {
        let (filter_layer, filter_handle) = reload::Layer::new(parse(filter)?);
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
        let running = Running { filter_handle, format, started_with, current, unread };
        Ok((Self { running: Some(running), quota: Quota::default() }, Flush(Some(guard))))
    }

    /// The filter in force; `off` without a log.
    #[must_use]
    pub fn filter(&self) -> String {
        let current = |running: &Running| running.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
        let unread = |running: &Running| u64::try_from(running.unread.dropped_lines()).unwrap_or(u64::MAX);
        let unread = self.running.as_ref().map_or(0, unread);
        [unread, self.quota.errors_left_out(), self.quota.decisions_left_out()]
    }

    /// Puts another filter in force; returns the previous one.
    ///
    /// # Errors
    ///
    /// When the filter is not valid, or there is no log; then nothing changes.
    pub fn set_filter(&self, filter: &str) -> Result<String, FilterError> {
        let parsed = parse(filter)?;
        let no_log = || FilterError { filter: filter.to_owned(), problem: "there is no log".to_owned() };
        let running = self.running.as_ref().ok_or_else(no_log)?;
        // Locked until the filter is in force, so that `current` is never wrong.
        let mut current = running.current.lock().unwrap_or_else(PoisonError::into_inner);
        running.filter_handle.reload(parsed).map_err(|_| no_log())?;
        Ok(std::mem::replace(&mut *current, filter.to_owned()))
    }
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    let invalid = |problem: String| FilterError { filter: filter.chars().take(64).collect(), problem };
    if filter.len() > LOG_FILTER_BYTES_MAX {
        return Err(invalid(format!("it has more than {LOG_FILTER_BYTES_MAX} bytes")));
    }
    if filter.is_empty() || !filter.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:=,-".contains(&byte)) {
        return Err(invalid("it has characters that neither a level nor a module has".to_owned()));
    }
    // EnvFilter takes a word that is no level, such as `inof`, for a module and logs everything of it.
    for directive in filter.split(',') {
        let (module, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
        if !known || module.contains('=') || (directive.contains('=') && module.is_empty()) {
            return Err(invalid(format!("`{level}` is no level")));
        }
    }
    EnvFilter::builder().with_regex(false).parse(filter).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_by_module() {
        for filter in ["info", "off", "queuewarden=debug", "queuewarden::server=trace,warn"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        let long = "a".repeat(LOG_FILTER_BYTES_MAX + 1);
        for filter in ["", "inof", "info,", "=debug", "a=b=debug", "info\n", "[x{y=z}]=debug", "queuewarden=", &long] {
            assert!(parse(filter).is_err(), "{filter:?}");
        }
    }

    #[test]
    fn without_a_log_the_filter_is_off_and_cannot_change() {
        let log = Log::default();
        assert_eq!((&*log.filter(), log.left_out()), ("off", [0; 3]));
        assert!(log.set_filter("debug").is_err());
    }
}
