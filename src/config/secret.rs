//! Secrets: tokens and passwords. Each is in a file of its own, which the configuration names by its path.

use std::path::Path;

use crate::config::permissions;
use crate::config::reader::{Section, Source, SpannedStr};

/// A secret. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The bytes of the secret, to compare or to hash.
    #[must_use]
    pub const fn reveal(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// The form of a file that contains one secret.
pub(super) struct SecretFile<'a> {
    /// The name of the file in a problem, like "the token file".
    pub(super) kind: &'static str,
    /// The greatest length of the secret, without the newline behind it.
    pub(super) bytes_max: usize,
    /// The help of its problems: the content that the file must have.
    pub(super) help: &'a str,
}

impl SecretFile<'_> {
    /// Reads the file at `path`, which is relative to `folder`. A newline at the end is not part of the secret: most
    /// editors add one. A file that every user of the machine may read is refused.
    pub(super) fn read(
        &self,
        section: &Section<'_>,
        path: &SpannedStr<'_>,
        folder: &Path,
        is_admitted: impl Fn(&str) -> bool,
    ) -> Option<Secret> {
        let bytes_max = self.bytes_max as u64 + 1;
        let file = folder.join(path.value);
        if let Some(problem) = permissions::problem_of_secret(&file) {
            let message = format!("{} {}", self.kind, problem.message);
            section.report_with_help(&path.span, message, problem.help.unwrap_or_default());
            return None;
        }
        let source = match Source::read(&file, bytes_max) {
            Ok(source) => source,
            Err(problem) => {
                section.report(&path.span, format!("{} {problem}", self.kind));
                return None;
            }
        };
        let text = source.text.strip_suffix('\n').unwrap_or(&source.text);
        if text.starts_with('\u{feff}') {
            let message = format!("{} begins with a byte-order mark, which is no part of a secret", self.kind);
            section.report_with_help(&path.span, message, "save the file as UTF-8 without a byte-order mark");
            return None;
        }
        if !is_admitted(text) {
            section.report_with_help(&path.span, format!("{} does not contain a valid secret", self.kind), self.help);
            return None;
        }
        Some(Secret::new(text.to_owned()))
    }
}
