//! Tests of a chain: rotation, retention, cut lines, clocks that were set.

use super::*;
use crate::audit::Retention;
use crate::audit::line::ReadLine;
use crate::audit::record::{DecisionId, LogTime};
use crate::audit::verify::{VerifyAgainst, verify};

const START_MS: u64 = 1_700_000_000_000;
const ENDLESS: Retention = Retention { max_seconds: 1_000_000, max_bytes: 0 };

impl ChainLog {
    /// Writes at a time of a trusted clock.
    fn put(&mut self, packed: &[u8], now_ms: u64) -> Result<u64, AuditError> {
        self.write(packed, &mut WriteTime { now_ms, is_trusted: true, start: 0 }, Sync::Now)
    }
}

fn options(folder: &Path) -> AuditLogOptions {
    AuditLogOptions {
        folder: folder.to_owned(),
        rotation_max_bytes: 1_000_000,
        rotation_max_seconds: 60,
        decisions: ENDLESS,
        record: Retention { max_seconds: 1_000_000, max_bytes: 0 },
    }
}

fn decision(id: u64) -> Vec<u8> {
    AuditRecord { id: DecisionId::numbered(id), ..AuditRecord::about(About::Decision) }.packed()
}

fn count(folder: &Path) -> usize {
    segments(AuditChain::Record, folder).unwrap().len()
}

/// The events of all lines, in order.
fn events(folder: &Path) -> Vec<String> {
    let report = verify(folder, &VerifyAgainst::default()).unwrap();
    assert!(report.whole, "{report:?}");
    let texts = segments(AuditChain::Record, folder)
        .unwrap()
        .into_iter()
        .map(|segment| fs::read_to_string(segment.path).unwrap());
    let event = |line: &str| serde_json::from_str::<ReadLine>(line).unwrap().event;
    texts.flat_map(|text| text.lines().map(event).collect::<Vec<_>>()).collect()
}

#[test]
fn an_old_file_is_followed_by_a_new_one_and_the_chain_continues() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    for (second, files) in [(0, 1), (59, 1), (60, 2), (61, 2), (3_600, 3)] {
        log.put(&decision(1), START_MS + second * 1_000).unwrap();
        assert_eq!(count(folder.path()), files, "after {second} s");
    }
    // A clock that was set back makes no file old, and the next line begins a file.
    log.put(&decision(1), START_MS).unwrap();
    assert_eq!((count(folder.path()), events(folder.path()).len()), (4, 6));
}

#[test]
fn an_unfinished_line_is_cut_off_and_recorded_at_any_length() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    log.put(&decision(1), START_MS).unwrap();
    drop(log);
    let path = segments(AuditChain::Record, folder.path()).unwrap().remove(0).path;
    let whole = fs::read(&path).unwrap();
    let head = fs::read(folder.path().join(AuditChain::Record.head_file())).unwrap();
    for cut in 1..whole.len() {
        fs::write(&path, [&whole[..], &whole[..cut]].concat()).unwrap();
        fs::write(folder.path().join(AuditChain::Record.head_file()), &head).unwrap();
        let report = verify(folder.path(), &VerifyAgainst::default()).unwrap();
        // A line that lacks only its line end counts as unfinished.
        assert!(report.whole && report.notes.len() == 1, "{cut}: {report:?}");
        let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
        log.put(&decision(2), START_MS).unwrap();
        drop(log);
        assert_eq!(events(folder.path()), ["decision", "cut", "decision"], "{cut}");
    }
}

#[test]
fn an_expired_file_is_removed_and_the_log_records_it() {
    let folder = tempfile::tempdir().unwrap();
    let record = Retention { max_seconds: 600, ..ENDLESS };
    let options = AuditLogOptions { record, ..options(folder.path()) };
    let mut log = ChainLog::open(AuditChain::Record, options).unwrap();
    log.put(&decision(1), START_MS).unwrap();
    let mut maintain = |now_ms, is_trusted| log.maintain(&mut WriteTime { now_ms, is_trusted, start: 0 }).unwrap();
    assert_eq!(maintain(START_MS + 599_000, true), 0);
    assert_eq!(maintain(START_MS + 8_640_000_000, false), 0, "DOOR E1: the clock is not trusted");
    assert_eq!(maintain(START_MS + 600_000, true), 1, "nothing else is written");
    assert_eq!(events(folder.path()), ["retention"]);
}

#[test]
fn the_oldest_files_are_removed_while_all_of_them_are_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let options = AuditLogOptions {
        rotation_max_bytes: 1_000,
        record: Retention { max_bytes: 4_000, ..ENDLESS },
        ..options(folder.path())
    };
    let mut log = ChainLog::open(AuditChain::Record, options).unwrap();
    for number in 1..200 {
        log.put(&decision(number), START_MS).unwrap();
        let bytes: u64 = segments(AuditChain::Record, folder.path())
            .unwrap()
            .iter()
            .map(|file| fs::metadata(&file.path).unwrap().len())
            .sum();
        assert!(bytes < 6_000, "{bytes}");
    }
    assert!(events(folder.path()).len() > 5);
    // A file that the log did not remove is missed.
    fs::remove_file(&segments(AuditChain::Record, folder.path()).unwrap()[0].path).unwrap();
    assert!(!verify(folder.path(), &VerifyAgainst::default()).unwrap().whole);
}

#[test]
fn a_folder_that_is_moved_away_gets_no_lines_and_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let log_folder = folder.path().join("audit");
    let mut log = ChainLog::open(AuditChain::Record, options(&log_folder)).unwrap();
    log.put(&decision(1), START_MS).unwrap();
    fs::rename(&log_folder, folder.path().join("elsewhere")).unwrap();
    assert!(log.put(&decision(2), START_MS).is_err(), "nobody would find the line");
    assert_eq!(log.synced().sequence, 1);
    log.put(&decision(2), START_MS).unwrap();
    assert_eq!(log.synced().sequence, 2, "a sequence is used once");
    let problem = verify(&log_folder, &VerifyAgainst::default()).unwrap().problem.unwrap();
    assert!(problem.message.starts_with("lines 1 to 1 of the log are missing before it"), "{problem}");
}

#[test]
fn an_end_that_was_cut_off_is_missed_after_new_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    for number in 1..=3 {
        log.put(&decision(number), START_MS).unwrap();
    }
    drop(log);
    let path = segments(AuditChain::Record, folder.path()).unwrap().remove(0).path;
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.split_inclusive('\n').next().unwrap()).unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    log.put(&decision(1), START_MS).unwrap();
    let problem = verify(folder.path(), &VerifyAgainst::default()).unwrap().problem.unwrap();
    assert!(problem.line == Some(2) && problem.message.starts_with("lines 2 to 3 of"), "{problem}");
}

/// FIELD D2: when the clock is set back, also within one write, the next line begins a file; the log stays whole.
#[test]
fn a_clock_that_is_set_back_begins_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    let record = |time| AuditRecord { time: LogTime(time), ..AuditRecord::about(About::Decision) }.packed();
    let hour = 3_600_000;
    let records = [START_MS, START_MS + hour, START_MS + hour - 9_000, START_MS + 1_000].map(record).concat();
    assert_eq!(log.put(&records, START_MS + 1_000).unwrap(), 4);
    assert_eq!(log.put(&record(START_MS + 2_000), START_MS + 2_000).unwrap(), 1);
    let firsts =
        || segments(AuditChain::Record, folder.path()).unwrap().iter().map(|segment| segment.first).collect::<Vec<_>>();
    assert_eq!(firsts(), [1, 4]);
    drop(log);
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    assert_eq!(log.put(&record(START_MS + 2_000), START_MS + 2_000).unwrap(), 1);
    assert_eq!(firsts(), [1, 4]);
    // Behind a restart it is not known how late the lines of the file are.
    assert_eq!(log.put(&record(START_MS + 1_000), START_MS + 1_000).unwrap(), 1);
    assert_eq!(firsts(), [1, 4, 7]);
    assert!(verify(folder.path(), &VerifyAgainst::default()).unwrap().whole);
}

/// DOOR E1: a file with lines of a time to come is as old as the lines behind it.
#[test]
fn lines_that_a_wrong_clock_wrote_keep_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    let day_ms = 86_400_000;
    log.put(&decision(1), START_MS + 100 * day_ms).unwrap();
    log.put(&decision(2), START_MS).unwrap();
    log.put(&decision(3), START_MS + day_ms).unwrap();
    assert_eq!(count(folder.path()), 3);
    let mut at = WriteTime { now_ms: START_MS + 12 * day_ms, is_trusted: true, start: 0 };
    assert_eq!(log.maintain(&mut at).unwrap(), 1, "1,000,000 s are 11.6 days");
    assert_eq!(events(folder.path()), ["decision", "retention"]);
}

/// DOOR 4: the files that a version with one chain wrote are the beginning of `record`.
#[test]
fn a_log_of_the_old_name_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    log.put(&decision(1), START_MS).unwrap();
    drop(log);
    let path = segments(AuditChain::Record, folder.path()).unwrap().remove(0).path;
    let name = path.file_name().unwrap().to_str().unwrap().replace("record-", "audit-");
    fs::rename(&path, folder.path().join(&name)).unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    log.put(&decision(2), START_MS + 1_000).unwrap();
    let files = segments(AuditChain::Record, folder.path()).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[0], name);
    assert!(names[1].starts_with("record-00000000000000000002-2"), "{names:?}");
    assert_eq!(events(folder.path()).len(), 2, "one chain");
}

/// DOOR 4: lines that are not on disk yet are behind the head, which never is ahead of the disk.
#[test]
fn lines_that_need_not_be_on_disk_are_written_and_the_head_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ChainLog::open(AuditChain::Record, options(folder.path())).unwrap();
    log.put(&decision(1), START_MS).unwrap();
    let mut at = WriteTime { now_ms: START_MS, is_trusted: true, start: 0 };
    let place = log.place();
    log.write(&decision(2), &mut at, Sync::Later).unwrap();
    assert_eq!(log.synced().sequence, 1);
    let head = || head::read(AuditChain::Record, folder.path()).unwrap();
    assert!(matches!(head(), StoredHead::Line(line) if line.sequence == 1));
    log.take_back(place);
    assert_eq!(events(folder.path()).len(), 1);
    log.write(&decision(2), &mut at, Sync::Later).unwrap();
    log.sync().unwrap();
    assert!(matches!(head(), StoredHead::Line(line) if line.sequence == 2));
    assert_eq!(events(folder.path()).len(), 2);
}
