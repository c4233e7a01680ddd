//! The options that fix the mode and the target of an allowed supervision at the PBX, so that the supervisor cannot
//! change either by a key press.
//!
//! - Asterisk (`ChanSpy`): `q` no beep to the target, `b` only bridged calls, `E` and `S` end with the spied channel
//!   instead of moving on to the next match, `w` whisper, `B` barge. Never `d`: with it, keys 4, 5 and 6 change the
//!   mode without a question to queuewarden.
//! - FreeSWITCH (`eavesdrop`): key presses are off, and two variables set the mode.

use crate::telephony::SupervisionMode;

/// The options of `ChanSpy` for this mode.
#[must_use]
pub const fn asterisk(mode: SupervisionMode) -> &'static str {
    match mode {
        SupervisionMode::Listen => "qbES",
        SupervisionMode::Whisper => "qbwES",
        SupervisionMode::Barge => "qbBES",
    }
}

/// The channel variables of `eavesdrop` for this mode, as `name:value`, separated by commas.
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
    fn no_mode_lets_a_key_press_change_the_mode() {
        for &mode in SupervisionMode::ALL {
            assert!(!asterisk(mode).contains('d'));
            assert!(asterisk(mode).contains('E') && asterisk(mode).contains('S'));
            assert!(freeswitch(mode).contains("eavesdrop_enable_dtmf:false"));
        }
    }
}
