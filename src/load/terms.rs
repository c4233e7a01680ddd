//! The keys of a question that are new each time it is sent: `until` and `once`.
//!
//! The questions are encoded before the run. Where these keys belong they have a value of fixed length, which each
//! sending overwrites in its copy.

use memchr::memmem;

use crate::sidecar::Clock;

/// The value of `until` in an encoded question.
pub(super) const UNTIL_MARK: &str = "1000000000013";
/// The value of `once` in an encoded question: letters and digits only, which no dialect encodes.
pub(super) const ONCE_MARK: &str = "Load0000000000000000";

/// Which of these keys every question has.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuestionTerms {
    /// `until` is this many milliseconds after the question is sent. `None`: questions have no `until`.
    pub within_ms: Option<u32>,
    /// Whether every question that is sent has a `once` of its own.
    pub once: bool,
}

impl QuestionTerms {
    /// Sets the keys in the bytes of one question. `serial` tells it from every other question of the run.
    pub(super) fn fill(self, question: &mut [u8], serial: u64) {
        if let Some(within_ms) = self.within_ms {
            overwrite(question, UNTIL_MARK, &(Clock::system().0 + u64::from(within_ms)).to_string());
        }
        if self.once {
            overwrite(question, ONCE_MARK, &format!("Load{serial:016x}"));
        }
    }
}

fn overwrite(question: &mut [u8], mark: &str, value: &str) {
    let Some(start) = memmem::find(question, mark.as_bytes()) else { return };
    if let Some(slot) = question.get_mut(start..start + mark.len()).filter(|slot| slot.len() == value.len()) {
        slot.copy_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sending_has_values_of_its_own() {
        let mut question = format!("1 do org=a until={UNTIL_MARK} once={ONCE_MARK}\n").into_bytes();
        QuestionTerms { within_ms: Some(500), once: true }.fill(&mut question, 0xab);
        let text = String::from_utf8(question).unwrap();
        assert!(text.ends_with(" once=Load00000000000000ab\n") && !text.contains(UNTIL_MARK), "{text}");
    }
}
