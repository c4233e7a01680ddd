//! The log: one event a line, written by a thread of its own, so that nobody who decides waits for whoever reads it.
//!
//! What comes from a peer or from a file reaches the log as a value only, and `format` lets no value begin a line.

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

/// What is logged unless somebody says otherwise.
pub const FILTER_DEFAULT: &str = "info";

closed_list! {
    /// How a line looks.
    Format {
        /// A JSON object.
        Json = "json",
        /// Words for people.
        Text = "text",
    }
}

closed_list! {
    /// Why a line is not in the log.
    LeftOut {
        /// Nobody read the log in time.
        Unread = "unread",
        /// Its peer had erred too often.
        Errors = "errors",
        /// Too many decisions were told in that second.
        Decisions = "decisions",
    }
}

/// A filter that cannot be one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{filter}` is no filter of the log: {why}\n  help: warn, info, debug or trace; or by module, like queuewarden=debug,warn"
)]
pub struct FilterError {
    filter: String,
    why: String,
}

/// The log of the process.
#[derive(Debug, Default)]
pub struct Log {
    running: Option<Running>,
    /// What is left out of it.
    pub quota: Quota,
}

#[derive(Debug)]
struct Running {
    filter: reload::Handle<EnvFilter, Registry>,
    format: Format,
    started_with: String,
    current: Mutex<String>,
    lost: ErrorCounter,
}

/// Writes what waits when it is dropped.
#[derive(Debug)]
pub struct Flush(Option<WorkerGuard>);

impl Drop for Flush {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Log {
    /// Begins to log to stderr.
    ///
    /// # Errors
    ///
    /// When the filter cannot be one.
    pub fn start(filter: &str, format: Format) -> Result<(Self, Flush), FilterError> {
        let (filter_layer, handle) = reload::Layer::new(parse(filter)?);
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_LINES_WAITING_MAX)
            .lossy(true)
            .thread_name("log")
            .finish(io::stderr());
        let lost = writer.error_counter();
        let subscriber = {
            use tracing_subscriber::layer::SubscriberExt;
            let lines =
                tracing_subscriber::fmt::layer().event_format(Lines(format)).with_ansi(false).with_writer(writer);
            Registry::default().with(filter_layer).with(lines)
        };
        // A test that runs the server in its own process may have a log already.
        drop(tracing::subscriber::set_global_default(subscriber));
        let (started_with, current) = (filter.to_owned(), Mutex::new(filter.to_owned()));
        let running = Running { filter: handle, format, started_with, current, lost };
        Ok((Self { running: Some(running), quota: Quota::default() }, Flush(Some(guard))))
    }

    /// What is logged.
    #[must_use]
    pub fn filter(&self) -> String {
        let current = |running: &Running| running.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.running.as_ref().map_or_else(|| "off".to_owned(), current)
    }

    /// What was logged from the start.
    #[must_use]
    pub fn started_with(&self) -> &str {
        self.running.as_ref().map_or("off", |running| &running.started_with)
    }

    /// How a line looks.
    #[must_use]
    pub fn format(&self) -> Format {
        self.running.as_ref().map_or(Format::Json, |running| running.format)
    }

    /// How many lines are not in the log, by why in the order of [`LeftOut::ALL`].
    #[must_use]
    pub fn left_out(&self) -> [u64; LeftOut::ALL.len()] {
        let unread = |running: &Running| u64::try_from(running.lost.dropped_lines()).unwrap_or(u64::MAX);
        let unread = self.running.as_ref().map_or(0, unread);
        [unread, self.quota.errors_left_out(), self.quota.decisions_left_out()]
    }

    /// Logs something else from now on; what was logged before.
    ///
    /// # Errors
    ///
    /// When the filter cannot be one; then nothing changes.
    pub fn set_filter(&self, filter: &str) -> Result<String, FilterError> {
        let parsed = parse(filter)?;
        let no_log = || FilterError { filter: filter.to_owned(), why: "there is no log".to_owned() };
        let running = self.running.as_ref().ok_or_else(no_log)?;
        // Held until the filter is in force, so that the two never disagree.
        let mut current = running.current.lock().unwrap_or_else(PoisonError::into_inner);
        running.filter.reload(parsed).map_err(|_| no_log())?;
        Ok(std::mem::replace(&mut *current, filter.to_owned()))
    }
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    let wrong = |why: String| FilterError { filter: filter.chars().take(64).collect(), why };
    if filter.len() > LOG_FILTER_BYTES_MAX {
        return Err(wrong(format!("it has more than {LOG_FILTER_BYTES_MAX} bytes")));
    }
    if filter.is_empty() || !filter.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:=,-".contains(&byte)) {
        return Err(wrong("it holds what is neither a level nor a module".to_owned()));
    }
    // A word that is no level would be a module of which everything is logged: `inof`, say.
    for directive in filter.split(',') {
        let (module, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
        if !known || module.contains('=') || (directive.contains('=') && module.is_empty()) {
            return Err(wrong(format!("`{level}` is no level")));
        }
    }
    EnvFilter::builder().with_regex(false).parse(filter).map_err(|error| wrong(error.to_string()))
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
    fn without_a_log_nothing_is_pretended() {
        let log = Log::default();
        assert_eq!((&*log.filter(), log.left_out()), ("off", [0; 3]));
        assert!(log.set_filter("debug").is_err());
    }
}
