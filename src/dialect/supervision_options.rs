//! What pins an allowed supervision down: the options with which each PBX keeps the listener from changing the mode or
//! the target by himself.
//!
//! Asterisk (`ChanSpy`): `q` no beep to the target, `b` only calls that are under way, `E` and `S` end with the spied
//! channel instead of moving on to the next match, `w` whisper, `B` barge. Never `d`: it lets keys 4, 5 and 6 change
//! the mode without asking anybody. FreeSWITCH (`eavesdrop`): its keys are off, and the mode is set by two variables.

use crate::telephony::SupervisionMode;

/// The options of Asterisk's `ChanSpy`.
#[must_use]
pub const fn asterisk(mode: SupervisionMode) -> &'static str {
    match mode {
        SupervisionMode::Listen => "qbES",
        SupervisionMode::Whisper => "qbwES",
        SupervisionMode::Barge => "qbBES",
    }
}

/// The channel variables of FreeSWITCH's `eavesdrop`, as `name:value` separated by commas.
#[must_use]
pub const fn freeswitch(mode: SupervisionMode) -> &'static str {
    match mode {
        SupervisionMode::Listen => "eavesdrop_enable_dtmf:false",
        SupervisionMode::Whisper => "eavesdrop_enable_dtmf:false,eavesdrop_whisper_bleg:true",
        SupervisionMode::Barge => "eavesdrop_enable_dtmf:false,eavesdrop_whisper_aleg:true,eavesdrop_whisper_bleg:true",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mode_lets_keys_change_the_mode() {
        for &mode in SupervisionMode::ALL {
            assert!(!asterisk(mode).contains('d'));
            assert!(asterisk(mode).contains('E') && asterisk(mode).contains('S'));
            assert!(freeswitch(mode).contains("eavesdrop_enable_dtmf:false"));
        }
    }
}
