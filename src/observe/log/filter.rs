//! The filter of the log: which events are logged, by level and by module.

use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::limits::LOG_FILTER_BYTES_MAX;

/// The filter without `QUEUEWARDEN_LOG`.
pub const FILTER_DEFAULT: &str = "info";

/// Characters of an invalid filter that its error shows.
const FILTER_SHOWN_MAX: usize = 64;

/// The name of the crate, with which every module begins.
const CRATE: &str = "queuewarden";

/// The modules that log, without the name of the crate.
pub const MODULES: &[&str] = &[
    "api",
    "api::auth",
    "api::backup",
    "api::links",
    "api::log",
    "api::operate",
    "cli::serve",
    "gate::change_feed",
    "lifecycle",
    "lifecycle::background",
    "lifecycle::process",
    "lifecycle::systemd",
    "lifecycle::witness",
    "lifecycle::writer_observer",
    "links::status",
    "links::task",
    "server::accept",
    "server::decision_log",
    "server::evapi_client",
];

/// A filter of the log that is not valid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{filter}` is no filter of the log: {problem}\n  help: warn, info, debug or trace; or by module, as in queuewarden::server=debug,warn"
)]
pub struct FilterError {
    filter: String,
    problem: String,
}

impl FilterError {
    /// An error about this filter, of which the beginning is shown.
    pub(super) fn new(filter: &str, problem: impl Into<String>) -> Self {
        Self { filter: filter.chars().take(FILTER_SHOWN_MAX).collect(), problem: problem.into() }
    }
}

/// Parses levels by module: `debug`, or `queuewarden::server=debug,warn`. A module includes the modules below it; the
/// longest name that matches counts. A level without a module is that of all other modules; without one they log at
/// [`FILTER_DEFAULT`], because a filter for one module must not silence the rest.
///
/// # Errors
///
/// When a level is unknown, or no module with the name logs anything.
pub(super) fn parse(filter: &str) -> Result<Targets, FilterError> {
    let invalid = |problem: String| FilterError::new(filter, problem);
    if filter.len() > LOG_FILTER_BYTES_MAX {
        return Err(invalid(format!("it has more than {LOG_FILTER_BYTES_MAX} bytes")));
    }
    if filter.is_empty() || !filter.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:=,-".contains(&byte)) {
        return Err(invalid("it has characters that neither a level nor a module has".to_owned()));
    }
    let mut rest = None;
    let mut targets = Targets::new();
    for directive in filter.split(',') {
        let (module, level) = match directive.split_once('=') {
            Some((module, level)) => (Some(module), level),
            None => (None, directive),
        };
        let level = level_named(level).ok_or_else(|| invalid(format!("`{level}` is no level")))?;
        match module {
            None if rest.replace(level).is_some() => {
                return Err(invalid("it has two levels without a module".to_owned()));
            }
            None => {}
            Some(module) if logs(module) => targets = targets.with_target(module, level),
            Some(module) => return Err(invalid(unknown(module))),
        }
    }
    let rest = rest.or_else(|| level_named(FILTER_DEFAULT)).unwrap_or(LevelFilter::INFO);
    Ok(targets.with_default(rest))
}

/// The level with this name, in small letters. Numbers, which the library also reads, are no levels here.
fn level_named(name: &str) -> Option<LevelFilter> {
    let is_name = ["off", "error", "warn", "info", "debug", "trace"].contains(&name);
    LevelFilter::from_str(name).ok().filter(|_| is_name)
}

/// Whether the module, or one below it, logs.
fn logs(module: &str) -> bool {
    let Some(below) = module.strip_prefix(CRATE) else { return false };
    let Some(name) = below.strip_prefix("::") else { return below.is_empty() };
    MODULES.iter().any(|known| known.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

fn unknown(module: &str) -> String {
    let mut rooms: Vec<&str> = MODULES.iter().filter_map(|module| module.split("::").next()).collect();
    rooms.dedup();
    format!("no module `{module}` logs; those of {CRATE} are {CRATE}::{{{}}}", rooms.join(", "))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_levels_by_module() {
        for filter in
            ["info", "off", "queuewarden=debug", "queuewarden::server=trace,warn", "warn,queuewarden::links=off"]
        {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        let long = "a".repeat(LOG_FILTER_BYTES_MAX + 1);
        for filter in [
            "",
            "inof",
            "3",
            "INFO",
            "info,",
            "info,debug",
            "=debug",
            "a=b=debug",
            "info\n",
            "[x{y=z}]=debug",
            "queuewarden=",
            "queuewarden::server",
            &long,
        ] {
            assert!(parse(filter).is_err(), "{filter:?}");
        }
    }

    /// FIELD D10: a module that does not exist silenced everything.
    #[test]
    fn a_module_that_does_not_log_is_named() {
        for module in [
            "queuewarden::sever",
            "queuewarden::serve",
            "queuewarden::",
            "queuewardens",
            "tokio",
            "queuewarden::policy",
        ] {
            let error = parse(&format!("{module}=debug")).unwrap_err().to_string();
            assert!(error.contains(&format!("no module `{module}` logs")) && error.contains("server"), "{error}");
        }
    }

    /// FIELD D10: a filter for one module says nothing of the others.
    #[test]
    fn the_other_modules_keep_their_level() {
        let admits = |filter: &str, module: &str, level: Level| {
            parse(filter).unwrap().would_enable(&format!("queuewarden::{module}"), &level)
        };
        assert!(admits("queuewarden::server=debug", "server::decision_log", Level::DEBUG));
        assert!(admits("queuewarden::server=debug", "lifecycle", Level::INFO));
        assert!(!admits("queuewarden::server=debug", "lifecycle", Level::DEBUG));
        assert!(!admits("queuewarden::server=debug,warn", "lifecycle", Level::INFO));
        assert!(!admits("queuewarden::server=off,debug", "server::accept", Level::ERROR));
    }
}
