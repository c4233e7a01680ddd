//! Feature-code presets: the codes of well-known PBXs. An organization names one, adds codes and overrides codes.
//!
//! The codes are those that the vendors document. A code for an action that queuewarden does not have, or whose meaning
//! is not documented, is left out. Patterns are complete here: a preset uses no shorthand.

/// The codes of one system, as `(pattern, action)`.
pub(super) type Preset = &'static [(&'static str, &'static str)];

/// Every preset, by name.
pub(super) const PRESETS: &[(&str, Preset)] = &[
    ("asterisk", ASTERISK),
    ("freepbx", FREEPBX),
    ("fusionpbx", FUSIONPBX),
    ("goto", GOTO),
    ("grandstream", GRANDSTREAM),
    ("yeastar_p", YEASTAR_P),
    ("yeastar_s", YEASTAR_S),
];

/// The dialplan in `config/asterisk`.
const ASTERISK: Preset = &[
    ("*13", "queue.login"),
    ("*13{queue}", "queue.login"),
    ("*14", "queue.logout"),
    ("*14{queue}", "queue.logout"),
    ("*15", "queue.pause"),
    ("*15{queue}", "queue.pause"),
    ("*16", "queue.resume"),
    ("*16{queue}", "queue.resume"),
    ("*17{target}*{queue}", "agent.login"),
    ("*18{target}*{queue}", "agent.logout"),
    ("*221{target}", "call.listen"),
    ("*222{target}", "call.whisper"),
    ("*223{target}", "call.barge"),
];

/// GoTo Connect. Whisper and barge are keys pressed during the call, not codes.
const GOTO: Preset = &[("*13", "queue.login"), ("*13{queue}", "queue.login"), ("*17{target}", "call.listen")];

/// FreePBX: the toggles, those of its BLF keys with the extension of the key's user, and the login and logout of older
/// releases.
const FREEPBX: Preset = &[
    ("*45", "queue.toggle"),
    ("*45{queue}", "queue.toggle"),
    ("*45*{target}", "queue.toggle"),
    ("*45{target}*{queue}", "queue.toggle"),
    ("*46", "queue.toggle_pause"),
    ("*46{queue}", "queue.toggle_pause"),
    ("*46*{target}", "queue.toggle_pause"),
    ("*46*{target}*{queue}", "queue.toggle_pause"),
    ("{queue}*", "queue.login"),
    ("{queue}**", "queue.logout"),
];

/// FusionPBX. Digits after its toggle are an agent's id, not a queue's: no pattern takes them.
const FUSIONPBX: Preset = &[("*22", "queue.toggle"), ("*33{target}", "call.listen")];

/// Grandstream UCM.
const GRANDSTREAM: Preset = &[
    ("{queue}*", "queue.login"),
    ("{queue}**", "queue.logout"),
    ("*83", "queue.pause"),
    ("*54{target}", "call.listen"),
    ("*55{target}", "call.whisper"),
    ("*56{target}", "call.barge"),
];

/// Yeastar P series.
const YEASTAR_P: Preset =
    &[("*51{target}", "call.listen"), ("*52{target}", "call.whisper"), ("*53{target}", "call.barge")];

/// Yeastar S series.
const YEASTAR_S: Preset = &[
    ("{queue}*", "queue.login"),
    ("{queue}**", "queue.logout"),
    ("*75{queue}", "queue.toggle"),
    ("*90{target}", "call.listen"),
    ("*91{target}", "call.whisper"),
    ("*92{target}", "call.barge"),
];
