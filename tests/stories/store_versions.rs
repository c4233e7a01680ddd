//! Given a session store of another version, when the sidecar starts, then an earlier version is read and becomes the
//! version of today, and a later one is refused with what to do (TRUTH 5).

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, run};

const SESSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessions");
const FIGURES: TableDefinition<'_, &str, u64> = TableDefinition::new("figures");
/// The session of `agent` in queue `q0`, as version 2 wrote it.
const SESSION_OF_VERSION_2: &[u8] = b"\x01\x02q0\x08assigned\x00\x00\x80\xe2\xcf\xaa\x06\x00\x00";

fn store(folder: &Folder) -> PathBuf {
    folder.path().join("state/sessions.redb")
}

fn version(path: &Path) -> u64 {
    let figures = Database::open(path).unwrap().begin_read().unwrap().open_table(FIGURES).unwrap();
    figures.get("format").unwrap().unwrap().value()
}

/// Makes a store of version 2 with one session.
fn write_version_2(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let key = b"acme\0agent";
    let mut hasher = Xxh3::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(SESSION_OF_VERSION_2);
    let checksum = hasher.digest();
    let value = [SESSION_OF_VERSION_2, &checksum.to_le_bytes()].concat();
    let transaction = Database::create(path).unwrap().begin_write().unwrap();
    {
        transaction.open_table(SESSIONS).unwrap().insert(&key[..], &*value).unwrap();
        let mut figures = transaction.open_table(FIGURES).unwrap();
        for (name, figure) in
            [("format", 2), ("records", 1), ("checksums", checksum), ("wall", 1_700_000_000_000), ("starts", 4)]
        {
            figures.insert(name, figure).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[test]
fn version_2_is_read_and_becomes_version_3() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    write_version_2(&store(&folder));
    let sidecar = Sidecar::start(&folder);
    let listing: Value = serde_json::from_str(&sidecar.get("/sessions")).unwrap();
    let row = &listing["rows"][0];
    assert_eq!(
        (&row["extension"], &row["queue"], &row["since_unix_seconds"]),
        (&"1001".into(), &"600".into(), &1_700_000_000_u64.into())
    );
    assert!(sidecar.terminate().success());
    assert_eq!(version(&store(&folder)), 3, "a queuewarden of version 2 refuses it");
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask("do org=acme actor=1001 action=queue.logout").starts_with("allow "));
}

#[test]
fn a_store_of_the_future_is_refused_with_what_to_do_and_left_as_it_is() {
    let folder = Folder::with("acme.toml", ORGANIZATION).durable();
    let sidecar = Sidecar::start(&folder);
    assert!(sidecar.ask("do org=acme actor=1001 action=queue.login").starts_with("allow "));
    assert!(sidecar.terminate().success());
    let path = store(&folder);
    let transaction = Database::open(&path).unwrap().begin_write().unwrap();
    transaction.open_table(FIGURES).unwrap().insert("format", 9).unwrap();
    transaction.commit().unwrap();
    let before = fs::read(&path).unwrap();
    let (status, text) = Sidecar::try_start(folder.path()).err().expect("it does not start");
    assert_eq!(status.code(), Some(1));
    let found =
        format!("{}: the session store has version 9, and this queuewarden reads the versions 2 to 3", path.display());
    assert!(text.contains(&found) && text.contains("start the queuewarden that wrote the store"), "{text}");
    // Salvage would take every record for a damaged one.
    let (status, text) = run(&["--config", folder.path().to_str().unwrap(), "sessions", "salvage"]);
    assert!(!status.success() && text.contains(&found), "{text}");
    assert_eq!(version(&path), 9);
    assert_eq!(
        fs::read_dir(folder.path().join("state"))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_str().unwrap().contains("damaged") })
            .count(),
        0
    );
    assert_eq!(before.len(), fs::read(&path).unwrap().len());
}
