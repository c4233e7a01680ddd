//! The questions of `compare` about the million users, and the answers that its comparison servers give.

use super::million_users::{extension, served};

/// The answer to [`question`] in the line dialect, as long as the sidecar's own.
pub const REPLY: &[u8] = b"7 allow action=queue.login queue=5123 reason=assigned policy=1\n";
/// The answer to [`environment`] over FastAGI, as long as the sidecar's own.
pub const AGI_REPLY: &[u8] = b"SET VARIABLE QW_REASON \"already_logged_in\"\nSET VARIABLE QW_ACTION \"queue.login\"\n\
    SET VARIABLE QW_QUEUES \"5123\"\nSET VARIABLE QW_TARGET \"\"\nSET VARIABLE QW_SPY_OPTIONS \"\"\n\
    SET VARIABLE QW_VERDICT \"ALLOW\"\n";

/// A question in the line dialect: may the user log in to the first queue that the user serves?
pub fn question(user: usize) -> String {
    let queue = served(user).next().unwrap();
    format!("7 may org=big actor={} action=queue.login queue={queue}\n", extension(user))
}

/// The FastAGI environment of the same user's login to the same queue.
pub fn environment(user: usize) -> String {
    let (actor, queue) = (extension(user), served(user).next().unwrap());
    format!(
        "agi_network: yes\nagi_network_script: big/queue.login\nagi_request: agi://127.0.0.1/big/queue.login\n\
         agi_channel: PJSIP/{actor}-00000000\nagi_language: en\nagi_type: PJSIP\nagi_uniqueid: perf-1700000000.1\n\
         agi_version: 20.0.0\nagi_callerid: {actor}\nagi_calleridname: unknown\nagi_callingpres: 0\n\
         agi_callingani2: 0\nagi_callington: 0\nagi_callingtns: 0\nagi_dnid: unknown\nagi_rdnis: unknown\n\
         agi_context: queuewarden\nagi_extension: s\nagi_priority: 1\nagi_enhanced: 0.0\nagi_accountcode: {actor}\n\
         agi_threadid: 1\nagi_arg_1: queue={queue}\n\n"
    )
}
