//! Given a session store that was cut or altered, when a sidecar starts on it, then the sidecar reports the damage and
//! does not start, or every written change is there. `sessions salvage` saves the readable part of a damaged store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use queuewarden::gate::Gate;
use queuewarden::sessions::store::StoreError;
use queuewarden::telephony::{Moment, UnixMillis};
use serde_json::Value;

use crate::crash::gate_client::{CommitCounter, NOW, ask, is_durable, load, rows, without_time};
use crate::crash::load::organization;
use crate::support::random_source::RandomSource;
use crate::support::{Folder, Sidecar, run};

const AGENTS: u16 = 100;
const FILE: &str = "sessions.redb";
const TALLY: &str = "sessions.tally";
/// Bytes of the head of the file, which locates everything else.
const HEAD_BYTES: usize = 320;
/// Starts on files that are altered after the head.
const ALTERATIONS: usize = 300;
const CUTS: usize = 60;

/// A written store: its bytes, and the sessions in it as rows.
struct WrittenStore {
    folder: Folder,
    bytes: Vec<u8>,
    /// The bytes of the file with the number of commits.
    commit_count: Vec<u8>,
    /// The bytes of the store at an earlier time.
    earlier: Vec<u8>,
    rows: Vec<Value>,
}

impl WrittenStore {
    /// Some hundred login sessions, in a file that was closed properly or left by a crash.
    fn new(crashed: bool) -> Self {
        let folder = Folder::with("acme.toml", &organization(AGENTS)).durable();
        let sidecar = Sidecar::start(&folder);
        let mut line = sidecar.line();
        let ask_each = |line: &mut crate::support::LineClient<_>, question: &dyn Fn(u16) -> String| {
            let questions: String = (0..AGENTS).map(|number| format!("1 do org=acme {}\n", question(number))).collect();
            line.send(questions.as_bytes());
            for _ in 0..AGENTS {
                let reply = line.line();
                assert!(reply.starts_with("1 allow "), "{reply}");
            }
        };
        ask_each(&mut line, &|number| format!("actor={} action=queue.login queue=600", 10_000 + number));
        let earlier = fs::read(folder.path().join("state").join(FILE)).unwrap();
        ask_each(&mut line, &|number| format!("actor={} action=queue.login", 10_000 + number));
        ask_each(&mut line, &|number| format!("actor={} action=queue.pause pause_reason=r{number}", 10_000 + number));
        ask_each(&mut line, &|number| {
            format!("actor=2001 action=agent.login target={} queue=602 for=36000", 30_000 + number)
        });
        let rows = rows_of(&sidecar);
        assert_eq!(rows.len(), usize::from(AGENTS) * 4);
        if crashed {
            sidecar.crash();
        } else {
            assert!(sidecar.terminate().success());
        }
        let bytes = fs::read(folder.path().join("state").join(FILE)).unwrap();
        let commit_count = fs::read(folder.path().join("state").join(TALLY)).unwrap();
        Self { folder, bytes, commit_count, earlier, rows }
    }
}

fn rows_of(sidecar: &Sidecar) -> Vec<Value> {
    let mut rows = vec![];
    let mut from = Some(0);
    while let Some(next) = from {
        let listing: Value = serde_json::from_str(&sidecar.get(&format!("/sessions?from={next}"))).unwrap();
        rows.extend(listing["rows"].as_array().unwrap().iter().cloned().map(without_time));
        from = listing["next"].as_u64();
    }
    rows.sort_by_key(ToString::to_string);
    rows
}

/// Opens a gate on the store in this folder, as a sidecar does at its start.
fn start(folder: &Folder, state: &Path) -> Result<Gate, StoreError> {
    let gate = Gate::new(true);
    load(&gate, folder);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1_000;
    let now = Moment { wall: UnixMillis(wall), uptime_ms: NOW.uptime_ms };
    gate.restore(state, now, Box::new(CommitCounter::default()), Box::new(|| NOW.wall.into()))?;
    Ok(gate)
}

/// Starts on these bytes and returns whether the gate started. An error must name the file. After a start every session
/// must be there, and a further change must be there after one more start.
fn is_right_or_refused(written: &WrittenStore, bytes: &[u8], case: &str) -> bool {
    let state = fast_folder();
    let file = state.path().join(FILE);
    fs::write(&file, bytes).unwrap();
    fs::write(state.path().join(TALLY), &written.commit_count).unwrap();
    let refused = |error: StoreError| {
        let message = error.to_string();
        assert!(message.starts_with(&format!("{}: ", file.display())), "{case}: {message}");
    };
    let mut expected = match start(&written.folder, state.path()) {
        Err(error) => {
            refused(error);
            return false;
        }
        Ok(gate) => {
            assert_same(&rows(&gate), &written.rows, case);
            let mut acknowledged = true;
            for number in (0..AGENTS).step_by(3) {
                let question = format!("do org=acme actor={} action=queue.logout queue=601", 10_000 + number);
                let (answer, group) = ask(&gate, &question, NOW);
                let durable = group.is_none_or(|group| is_durable(&group));
                acknowledged &= durable && answer.starts_with("allow ");
            }
            let expected = rows(&gate);
            let closed = gate.close_store(Duration::from_secs(5));
            // Damage that shows only at a write is refused at that write.
            acknowledged.then_some(expected).filter(|_| closed)
        }
    };
    match (start(&written.folder, state.path()), expected.take()) {
        (Ok(gate), Some(expected)) => {
            assert_same(&rows(&gate), &expected, &format!("{case}: after further changes"));
            assert!(gate.close_store(Duration::from_secs(5)), "{case}: the store does not close");
        }
        // A refused change may be on disk.
        (Ok(gate), None) => assert!(gate.close_store(Duration::from_secs(5)), "{case}: the store does not close"),
        (Err(error), _) => refused(error),
    }
    true
}

fn assert_same(found: &[Value], expected: &[Value], case: &str) {
    let differing = |rows: &[Value], others: &[Value]| -> Vec<String> {
        rows.iter().filter(|row| !others.contains(row)).map(ToString::to_string).collect()
    };
    assert!(
        found == expected,
        "{case}: started with wrong sessions: unexpected {:#?}\nmissing {:#?}",
        differing(found, expected),
        differing(expected, found)
    );
}

/// Prints no panics of the store library: it panics at some damage, and the gate catches the panic.
fn hide_store_panics() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("redb")) {
            default_hook(panic);
        }
    }));
}

/// A folder in memory, if the machine has one: the tests read files and do not need durability.
fn fast_folder() -> tempfile::TempDir {
    let in_memory = PathBuf::from("/dev/shm");
    if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap()
}

#[test]
fn an_altered_file_that_was_closed_is_refused_or_right() {
    alter(false);
}

#[test]
fn an_altered_file_that_a_crash_left_behind_is_refused_or_right() {
    alter(true);
}

fn alter(crashed: bool) {
    hide_store_panics();
    let written = WrittenStore::new(crashed);
    assert!(is_right_or_refused(&written, &written.bytes, "unaltered"));
    let mut random_source = RandomSource::new(u64::from(crashed));
    let in_use: Vec<usize> = (0..written.bytes.len()).filter(|&at| written.bytes[at] != 0).collect();
    let mut refusals = 0;
    // Each byte of the head is altered, and each bit of the byte with the flags.
    let flags = (0..8).map(|bit| (9, bit));
    for (at, bit) in (0..HEAD_BYTES).map(|at| (at, random_source.below(8))).collect::<Vec<_>>().into_iter().chain(flags)
    {
        let mut bytes = written.bytes.clone();
        bytes[at] ^= 1 << bit;
        let case = format!("crashed {crashed}: byte {at} with bit {bit} flipped");
        refusals += usize::from(!is_right_or_refused(&written, &bytes, &case));
    }
    for number in 0..ALTERATIONS / 2 {
        let mut bytes = written.bytes.clone();
        let at = match number % 4 {
            3 => random_source.below(bytes.len()),
            _ => random_source.pick(&in_use),
        };
        let page = at / 4_096 * 4_096..(at / 4_096 * 4_096 + 4_096).min(bytes.len());
        let case = match random_source.below(6) {
            0..=2 => {
                bytes[at] ^= 1 << random_source.below(8);
                format!("byte {at} with a bit flipped")
            }
            3 => {
                bytes[at] = random_source.below(256).try_into().unwrap();
                format!("byte {at} replaced")
            }
            4 => {
                bytes[page.clone()].fill(0);
                format!("{page:?} zeroed")
            }
            _ if page.end <= written.earlier.len() => {
                bytes[page.clone()].copy_from_slice(&written.earlier[page.clone()]);
                format!("{page:?} never written")
            }
            _ => continue,
        };
        refusals += usize::from(!is_right_or_refused(&written, &bytes, &format!("crashed {crashed}: {case}")));
    }
    assert!(refusals > ALTERATIONS / 20, "{refusals} refusals: the alterations hardly hit data in use");
}

#[test]
fn a_file_that_was_cut_is_refused_or_right() {
    hide_store_panics();
    let written = WrittenStore::new(false);
    let length = written.bytes.len();
    let mut random_source = RandomSource::new(9);
    let some = (0..CUTS).map(|_| random_source.below(length));
    let lengths: Vec<usize> =
        [0, 1, 64, 320, 511, 512, 4_095, 4_096, length - 4_096, length - 1].into_iter().chain(some).collect();
    let refusals = lengths
        .iter()
        .filter(|&&length| !is_right_or_refused(&written, &written.bytes[..length], &format!("cut to {length} bytes")));
    assert!(refusals.count() > CUTS / 2, "hardly any cut was refused");
}

/// Given a store with a damaged record, when the sidecar is started, then the error has the file and the command that
/// saves the rest. After that command every other user is logged in as before, and the damaged file has another name.
#[test]
fn the_undamaged_users_of_a_store_can_be_saved() {
    let written = WrittenStore::new(false);
    let path = written.folder.path().join("state").join(FILE);
    let folder = written.folder.path().to_str().unwrap();
    let salvage = || run(&["--config", folder, "sessions", "salvage"]);
    let (status, output) = salvage();
    assert!(status.success() && output.contains("200 users, nothing is damaged"), "{output}");

    let mut bytes = written.bytes.clone();
    let mut damaged = 0;
    for at in 0..bytes.len() - 8 {
        if bytes[at..].starts_with(b"agent23") || bytes[at..].starts_with(b"guest45") {
            bytes[at + 2] ^= 0x20;
            damaged += 1;
        }
    }
    assert!(damaged > 0, "the names of the users are in the file");
    fs::write(&path, &bytes).unwrap();
    let Err((status, output)) = Sidecar::try_start(written.folder.path()) else {
        panic!("the sidecar started on a damaged file")
    };
    assert_eq!(status.code(), Some(1), "{output}");
    for part in [path.to_str().unwrap(), "damaged", "sessions salvage"] {
        assert!(output.contains(part), "{part:?} is not in {output}");
    }
    // Without room for a new file the old file stays.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --config \"$1\" sessions salvage";
    let starved = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_queuewarden"), folder]).output().unwrap();
    assert!(!starved.status.success(), "{starved:?}");
    let Err((status, output)) = Sidecar::try_start(written.folder.path()) else {
        panic!("the sidecar started on a damaged file")
    };
    assert!(status.code() == Some(1) && output.contains("damaged"), "{output}");
    let (status, output) = salvage();
    assert!(status.success() && output.contains("users can be read") && output.contains("damaged-"), "{output}");
    let aside = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<PathBuf> = aside.filter(|path| path.to_str().unwrap().contains("damaged-")).collect();
    assert_eq!(aside.len(), 1);
    let sidecar = Sidecar::start(&written.folder);
    let found = rows_of(&sidecar);
    let is_whole = |row: &&Value| row["user"] != "agent23" && row["user"] != "guest45";
    let others: Vec<Value> = written.rows.iter().filter(is_whole).cloned().collect();
    assert_same(&found, &others, "all users but the damaged");
    let (status, output) = salvage();
    assert!(
        !status.success() && output.contains("another queuewarden"),
        "the store of a running sidecar is refused: {output}"
    );
}
