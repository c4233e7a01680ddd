//! Given a sidecar with a session store, when the file of the store is removed or replaced, then this is noticed within
//! a second and no login session is lost without a word (DOOR E13). Its files are for its user only (DOOR E15).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, binary, wait_until};

const LOGIN: &str = "do org=acme actor=1001 action=queue.login queue=600";
const TOGETHER: &str = "do org=acme actor=1003 action=queue.login";
const LOGOUT: &str = "do org=acme actor=1001 action=queue.logout queue=600";

fn open() -> (Folder, Sidecar) {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask(LOGIN).starts_with("allow "));
    (folder, sidecar)
}

fn in_state(folder: &Folder, name: &str) -> PathBuf {
    folder.path().join("state").join(name)
}

#[test]
fn a_removed_store_is_written_anew_from_memory() {
    let (folder, sidecar) = open();
    let store = in_state(&folder, "sessions.redb");
    fs::remove_file(&store).unwrap();
    sidecar.log_until("the session store is gone");
    sidecar.log_until("the session store can be written again");
    assert!(store.exists());
    assert!(sidecar.ask(TOGETHER).starts_with("allow "));
    sidecar.crash();
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask("do org=acme actor=1003 action=queue.logout").starts_with("allow "), "of after it");
    assert!(sidecar.ask(LOGOUT).starts_with("allow "), "the session of before the removal");
}

#[test]
fn a_store_that_another_file_replaced_takes_no_change() {
    let (folder, sidecar) = open();
    let (store, other) = (in_state(&folder, "sessions.redb"), in_state(&folder, "other"));
    fs::copy(&store, &other).unwrap();
    fs::rename(&store, in_state(&folder, "own")).unwrap();
    fs::rename(&other, &store).unwrap();
    sidecar.log_until("another file has the place of the session store");
    assert!(sidecar.ask(LOGOUT).starts_with("deny ") && sidecar.ask(LOGOUT).contains("reason=state_unavailable"));
    assert_eq!(sidecar.metric("queuewarden_store_healthy"), 0.0);
    // Its own file is back: it goes on by itself.
    fs::rename(in_state(&folder, "own"), &store).unwrap();
    wait_until("the store takes changes", || sidecar.ask(LOGOUT).starts_with("allow "));
}

#[test]
fn a_start_without_a_store_whose_commits_were_counted_is_refused() {
    let (folder, sidecar) = open();
    assert!(sidecar.terminate().success());
    fs::remove_file(in_state(&folder, "sessions.redb")).unwrap();
    let (status, text) = Sidecar::try_start(folder.path()).err().expect("it does not start");
    assert_eq!(status.code(), Some(1));
    assert!(
        text.contains("sessions.redb: the session store is gone, though ") && text.contains("remove `sessions.tally`"),
        "{text}"
    );
    assert!(!in_state(&folder, "sessions.redb").exists());
    fs::remove_file(in_state(&folder, "sessions.tally")).unwrap();
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask(LOGOUT).contains("reason=not_logged_in"));
}

/// The program with this shell command before it, as a service manager of one's own may start it.
fn after(shell: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    let program = binary();
    command.args(["-c", &format!("{shell}; exec \"$0\" --config \"$1\"")]).arg(program.get_program()).arg(folder);
    command
}

#[test]
fn files_are_for_their_user_only_whatever_the_mask() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::try_start_as(after("umask 000", folder.path())).unwrap_or_else(|(_, text)| panic!("{text}"));
    assert!(sidecar.ask(LOGIN).starts_with("allow "));
    let mut seen = 0;
    let mut folders = vec![folder.path().join("state")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{:?}", entry.path());
            seen += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(seen >= 4, "{seen} files and folders");
    // Also the store that `sessions salvage` makes of a damaged one.
    assert!(sidecar.terminate().success());
    let store = in_state(&folder, "sessions.redb");
    let bytes = fs::read(&store).unwrap();
    fs::write(&store, &bytes[..bytes.len() / 2]).unwrap();
    let mut salvage = Command::new("sh");
    salvage.args(["-c", "umask 000; exec \"$0\" --config \"$1\" sessions salvage"]);
    let salvaged = salvage.arg(binary().get_program()).arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&salvaged.stdout);
    assert!(text.contains("the readable users are in a new store"), "{text}");
    assert_eq!(fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_sidecar_starts_though_nobody_reads_its_output() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = binary().arg("--config").arg(folder.path()).stdout(writer).spawn().unwrap();
    wait_until("the admin socket answers", || UnixStream::connect(folder.path().join("run/admin.sock")).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
}
