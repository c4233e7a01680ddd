//! The organization of the benchmarks: a million users, each of whom serves 8 of 1,000 queues.

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

/// The extension of a user.
pub fn extension(user: usize) -> String {
    (FIRST_USER + user).to_string()
}

/// The numbers of the queues that the user serves.
pub fn served(user: usize) -> impl Iterator<Item = u16> {
    (0..QUEUES_OF_A_USER)
        .map(move |position| u16::try_from(FIRST_QUEUE + (user * 7 + position * 131) % QUEUES).unwrap())
}

/// Writes the organization into a configuration folder that already holds the role models.
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
