//! The processor time of a process, by the scheduler's own accounting.

use std::fs;
use std::path::PathBuf;

/// Nanoseconds that the threads of the process have run.
pub fn nanoseconds(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_thread = |path: PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    threads.filter_map(|thread| of_thread(thread.ok()?.path())).sum()
}
