//! Given a backup, when the process is killed while it restores, then after the restart all of its sessions are there
//! or none; on a full disk nothing is restored and nothing is lost (TRUTH 5).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use queuewarden::sessions::backup::BackupWriter;
use queuewarden::sessions::linked_members::MemberNote;
use queuewarden::sessions::record::SavedSession;
use serde_json::Value;

use crate::crash::full::{leave_room, start};
use crate::crash::load::organization;
use crate::support::random_source::RandomSource;
use crate::support::{Folder, Sidecar, run, wait_until};

const AGENTS: u16 = 1_500;
const KILLS: usize = 16;

/// A backup in which every agent is logged in to queue 600.
fn write_backup(path: &Path) {
    let mut writer = BackupWriter::new(vec!["acme".to_owned()], 1_700_000_000_000);
    for number in 0..AGENTS {
        let extension = (10_000 + number).to_string();
        let session = SavedSession {
            queue: "q600",
            ground: "assigned",
            paused: false,
            pause_reason: None,
            since: 1_700_000_000,
            by: None,
            ends: None,
            number: "600",
            origin: "phone",
            note: MemberNote::default(),
        };
        writer.session("acme", &format!("agent{number}"), &extension, &session);
    }
    fs::write(path, writer.finish().unwrap()).unwrap();
}

fn sessions(sidecar: &Sidecar) -> usize {
    let scrape = sidecar.get("/metrics");
    let lines = scrape.lines().filter(|line| line.starts_with("queuewarden_sessions{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize).sum()
}

fn restore(folder: &Folder, file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queuewarden"));
    command.arg("--config").arg(folder.path()).arg("restore").arg(file).arg("--replace");
    command
}

#[test]
fn a_restore_that_is_killed_is_there_whole_or_not_at_all() {
    let folder = Folder::with("acme.toml", &organization(AGENTS)).durable();
    let file = folder.path().join("saved.jsonl");
    write_backup(&file);
    let mut random_source = RandomSource::new(5);
    let (mut whole, mut none) = (0, 0);
    let mut longest = Duration::ZERO;
    for round in 0..KILLS {
        fs::remove_dir_all(folder.path().join("state")).ok();
        let sidecar = Sidecar::start(&folder);
        let began = Instant::now();
        let mut command = restore(&folder, &file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The first round takes its time; the others are killed within it.
        let acknowledged = if round == 0 {
            let status = command.wait().unwrap();
            longest = began.elapsed();
            status.success()
        } else {
            let micros = usize::try_from(longest.as_micros()).unwrap();
            thread::sleep(Duration::from_micros(random_source.below(micros) as u64));
            false
        };
        sidecar.crash();
        let acknowledged = command.wait().unwrap().success() || acknowledged;
        let sidecar = Sidecar::start(&folder);
        match sessions(&sidecar) {
            0 => none += 1,
            all if all == usize::from(AGENTS) => whole += 1,
            some => panic!("round {round}: {some} of {AGENTS} sessions"),
        }
        assert!(!acknowledged || sessions(&sidecar) == usize::from(AGENTS), "round {round}");
    }
    assert!(whole > 0 && none > 0, "{whole} whole, {none} none");
}

/// The same for a disk that has no room for the audit log, and for one that has none for the store.
#[test]
fn without_room_nothing_is_restored_and_nothing_is_lost() {
    for audited in [true, false] {
        let folder = Folder::with("acme.toml", &organization(AGENTS)).durable();
        if !audited {
            folder.replace("queuewarden.toml", "[state]", "[audit]\nenabled = false\n[state]");
        }
        let file: PathBuf = folder.path().join("saved.jsonl");
        write_backup(&file);
        let sidecar = start(&folder);
        assert!(sidecar.ask("do org=acme actor=10001 action=queue.login queue=601").starts_with("allow "));
        leave_room(&sidecar, Some(0));
        let output = restore(&folder, &file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("nothing was restored"), "{text}");
        assert_eq!(sessions(&sidecar), 1);
        let listing: Value = serde_json::from_str(&sidecar.get("/sessions")).unwrap();
        assert_eq!(listing["rows"][0]["queue"], "601");
        leave_room(&sidecar, None);
        wait_until("the disk to be writable", || sidecar.try_get("/readyz").0 == 200);
        let (status, text) =
            run(&["--config", folder.path().to_str().unwrap(), "restore", file.to_str().unwrap(), "--replace"]);
        assert!(status.success(), "{text}");
        assert_eq!(text, format!("{AGENTS} login sessions: {AGENTS} began, 1 ended\n"));
        sidecar.crash();
        assert_eq!(sessions(&Sidecar::start(&folder)), usize::from(AGENTS));
    }
}
