//! The organization that everything is measured with: a million users, each of whom serves 8 of 1,000 queues.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

pub const USERS: usize = 1_000_000;
pub const QUEUES: usize = 1_000;
pub const QUEUES_OF_A_USER: usize = 8;
/// The number of the first queue.
const FIRST_QUEUE: usize = 5_000;
/// The extension of the first user.
const FIRST_USER: usize = 2_000_000;

/// An answer of the sidecar to [`question`].
pub const REPLY: &[u8] = b"7 allow action=queue.login queue=5123 reason=assigned policy=1\n";
/// An answer of the sidecar over FastAGI.
pub const AGI_REPLY: &[u8] = b"SET VARIABLE QW_REASON \"already_logged_in\"\nSET VARIABLE QW_ACTION \"queue.login\"\n\
    SET VARIABLE QW_QUEUES \"5123\"\nSET VARIABLE QW_TARGET \"\"\nSET VARIABLE QW_SPY_OPTIONS \"\"\n\
    SET VARIABLE QW_VERDICT \"ALLOW\"\n";

pub fn extension(user: usize) -> String {
    (FIRST_USER + user).to_string()
}

/// The numbers of the queues that the user serves.
pub fn served(user: usize) -> impl Iterator<Item = u16> {
    (0..QUEUES_OF_A_USER)
        .map(move |position| u16::try_from(FIRST_QUEUE + (user * 7 + position * 131) % QUEUES).unwrap())
}

/// The question that all are asked, of a user and one of his queues.
pub fn question(user: usize) -> String {
    let queue = served(user).next().unwrap();
    format!("7 may org=big actor={} action=queue.login queue={queue}\n", extension(user))
}

/// The environment of a login by FastAGI.
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

/// Puts it into a configuration folder that holds the models already.
pub fn write(folder: &Path) {
    let mut text = String::from("organization = \"big\"\nmodel = \"goto\"\nusers_csv = \"big.csv\"\n");
    for queue in 0..QUEUES {
        write!(text, "[[queues]]\nid = \"q{queue}\"\nnumber = \"{}\"\n", FIRST_QUEUE + queue).unwrap();
    }
    fs::write(folder.join("organizations/big.toml"), text).unwrap();
    let mut file = BufWriter::new(File::create(folder.join("organizations/big.csv")).unwrap());
    writeln!(file, "id,extension,roles,queues,supervises,edits").unwrap();
    for user in 0..USERS {
        let queues: Vec<String> =
            served(user).map(|number| format!("q{}", usize::from(number) - FIRST_QUEUE)).collect();
        writeln!(file, "u{user},{},agent,{},,", extension(user), queues.join(" ")).unwrap();
    }
    file.flush().unwrap();
}
