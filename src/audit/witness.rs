//! What is told to a witness: a place where an intruder of this machine cannot reach. A line has the last line of both
//! chains and the time, and a signature that shows its origin.
//!
//! The key is made at the first start (Ed25519). The signature does not protect the log from whoever can read the key;
//! that the witness keeps the lines does. [`read_file`] reads the lines back, for `audit verify --witness`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::audit::FILE_MODE;
use crate::audit::head::ChainHead;
use crate::audit::line::{hex_of, unhex, unhex_bytes};
use crate::audit::record::rfc3339;
use crate::audit::verify::{KnownLine, VerifyAgainst};
use crate::limits::WITNESS_LINE_BYTES_MAX;

/// The file of the key in the state folder.
pub const KEY_FILE: &str = "witness.key";
const BEGIN: &str = "{\"witness\":1,";
const SIGNATURE_MEMBER: &str = ",\"signature\":\"";
/// Bits of the mode that let others than the owner and the group use the file, or the group change it.
const OPEN_TO_OTHERS: u32 = 0o037;

/// A public key: 32 bytes.
pub type WitnessPublicKey = [u8; 32];

/// Why there is no key.
#[derive(Debug, Error)]
pub enum WitnessKeyError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Others can read the file.
    #[error("{}: others can read the key: `chmod 600` it, or remove it and a new key is made", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file has no key.
    #[error("{}: the file has no key: remove it and a new key is made", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for a key")]
    Random,
}

/// The key that signs the lines.
#[derive(Debug)]
pub struct WitnessKey(Ed25519KeyPair);

impl WitnessKey {
    /// Reads the key in this folder, or makes one.
    ///
    /// # Errors
    ///
    /// When the file cannot be used.
    pub fn open_or_make(folder: &Path) -> Result<Self, WitnessKeyError> {
        let path = folder.join(KEY_FILE);
        match File::options().write(true).create_new(true).mode(FILE_MODE).open(&path) {
            Ok(mut file) => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| WitnessKeyError::Random)?;
                let text = hex_of(made.as_ref()) + "\n";
                let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                written.map_err(|source| WitnessKeyError::Io { path, source })?;
                Self::read(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(folder),
            Err(source) => Err(WitnessKeyError::Io { path, source }),
        }
    }

    /// Reads the key in this folder.
    ///
    /// # Errors
    ///
    /// When there is none, or others can read it.
    pub fn read(folder: &Path) -> Result<Self, WitnessKeyError> {
        let path = folder.join(KEY_FILE);
        let failed = |source| WitnessKeyError::Io { path: path.clone(), source };
        if fs::metadata(&path).map_err(failed)?.mode() & OPEN_TO_OTHERS != 0 {
            return Err(WitnessKeyError::Open { path });
        }
        let bytes = unhex_bytes(fs::read(&path).map_err(failed)?.trim_ascii());
        let key = bytes.and_then(|bytes| Ed25519KeyPair::from_pkcs8(&bytes).ok());
        key.map(Self).ok_or(WitnessKeyError::Damaged { path })
    }

    /// The public key in hexadecimal digits.
    #[must_use]
    pub fn public_hex(&self) -> String {
        hex_of(self.0.public_key().as_ref())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> Option<WitnessPublicKey> {
        self.0.public_key().as_ref().try_into().ok()
    }

    /// The signed line, without a line end.
    #[must_use]
    pub fn line(&self, heads: &WitnessedHeads, unix_ms: u64) -> String {
        let told = ToldHeads {
            witness: 1,
            time: rfc3339(unix_ms),
            record: ToldHead::of(heads.record),
            decisions: ToldHead::of(heads.decisions),
            key: self.public_hex(),
        };
        // Cannot fail: the members are numbers and text.
        let mut line = serde_json::to_string(&told).unwrap_or_default();
        line.pop();
        let signature = hex_of(self.0.sign(line.as_bytes()).as_ref());
        line + SIGNATURE_MEMBER + &signature + "\"}"
    }
}

/// The last line of each chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WitnessedHeads {
    /// Of `record`.
    pub record: ChainHead,
    /// Of `decisions`.
    pub decisions: ChainHead,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToldHeads {
    witness: u8,
    time: String,
    record: ToldHead,
    decisions: ToldHead,
    key: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToldHead {
    /// The number of the last line: lines that the chain ever had.
    lines: u64,
    hash: String,
}

impl ToldHead {
    fn of(head: ChainHead) -> Self {
        Self { lines: head.sequence, hash: hex_of(&head.hash) }
    }
}

/// Why a file of a witness proves nothing.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A line is not what the sidecar signed.
    #[error("{}:{line}: the witness line was altered: its signature does not match", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// No line is signed with the key.
    #[error("{}: no line is signed with the key {key}; `--key` names another", path.display())]
    NoLine {
        /// The file.
        path: PathBuf,
        /// The public key.
        key: String,
    },
}

/// What a file of a witness has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WitnessFileCount {
    /// Lines with the key.
    pub lines: u64,
    /// Witness lines of other keys, which are left out.
    pub others: u64,
}

/// Adds the lines that a witness knows to what the log is held against. Text before a witness line, as syslog writes
/// it, and lines that are none are left out; so is a last line without its end, which is being written.
///
/// # Errors
///
/// When the file cannot be read, a line of this key was altered, or there is none.
pub fn read_file(
    path: &Path,
    key: &WitnessPublicKey,
    against: &mut VerifyAgainst,
) -> Result<WitnessFileCount, WitnessError> {
    let bytes = fs::read(path).map_err(|source| WitnessError::Io { path: path.to_owned(), source })?;
    let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
    let mut count = WitnessFileCount { lines: 0, others: 0 };
    for (line, number) in bytes.get(..whole).unwrap_or_default().split(|&byte| byte == b'\n').zip(1..) {
        let Some(at) = memchr::memmem::find(line, BEGIN.as_bytes()) else { continue };
        let text = line.get(at..).unwrap_or_default().trim_ascii_end();
        let altered = || WitnessError::Signature { path: path.to_owned(), line: number };
        let (told, is_signed) = parse(text, key).ok_or_else(altered)?;
        if told.key != hex_of(key) {
            count.others += 1;
            continue;
        }
        if !is_signed {
            return Err(altered());
        }
        count.lines += 1;
        let source = format!("{}:{number}", path.display());
        for (head, known) in [(told.record, &mut against.record), (told.decisions, &mut against.decisions)] {
            let hash = unhex(head.hash.as_bytes()).ok_or_else(altered)?;
            if head.lines > 0 {
                known.entry(head.lines).or_default().push(KnownLine { hash, source: source.clone() });
            }
        }
    }
    if count.lines == 0 {
        return Err(WitnessError::NoLine { path: path.to_owned(), key: hex_of(key) });
    }
    Ok(count)
}

/// The members of a witness line, and whether this key signed it. `None`: it has not the form of one.
fn parse(text: &[u8], key: &WitnessPublicKey) -> Option<(ToldHeads, bool)> {
    if text.len() > WITNESS_LINE_BYTES_MAX {
        return None;
    }
    let at = memchr::memmem::rfind(text, SIGNATURE_MEMBER.as_bytes())?;
    let (signed, rest) = text.split_at_checked(at)?;
    let digits = rest.strip_prefix(SIGNATURE_MEMBER.as_bytes())?.strip_suffix(b"\"}")?;
    let told = serde_json::from_slice(&[signed, b"}"].concat()).ok()?;
    let is_signed = UnparsedPublicKey::new(&ED25519, key).verify(signed, &unhex_bytes(digits)?).is_ok();
    Some((told, is_signed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn heads() -> WitnessedHeads {
        let record = ChainHead { sequence: 7, hash: [1; 32] };
        WitnessedHeads { record, decisions: ChainHead { sequence: 9, hash: [2; 32] } }
    }

    /// DOOR 4: what a witness keeps is read back behind the words of syslog; any altered bit of it is found.
    #[test]
    fn a_witness_line_is_read_back_and_an_altered_one_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let key = WitnessKey::open_or_make(folder.path()).unwrap();
        let other = WitnessKey::open_or_make(tempfile::tempdir().unwrap().path()).unwrap();
        let (line, foreign) = (key.line(&heads(), 1_700_000_000_000), other.line(&heads(), 0));
        assert!(
            line.starts_with("{\"witness\":1,\"time\":\"2023-11-14T22:13:20.000Z\",\"record\":{\"lines\":7,"),
            "{line}"
        );
        let file = folder.path().join("witness");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            let mut against = VerifyAgainst::default();
            read_file(&file, &key.public().unwrap(), &mut against).map(|count| (count, against))
        };
        let (count, against) =
            read(&format!("<110>1 - - - {line}\nnoise\n{foreign}\n{line} \n{{\"witness\":1,\"ti")).unwrap();
        assert_eq!(count, WitnessFileCount { lines: 2, others: 1 });
        assert_eq!((against.record[&7].len(), against.decisions[&9][0].hash), (2, [2; 32]));
        assert_eq!(against.record[&7][1].source, format!("{}:4", file.display()));
        for position in BEGIN.len()..line.len() {
            let mut altered = line.clone().into_bytes();
            altered[position] ^= 1;
            assert!(read(&format!("{}\n", String::from_utf8_lossy(&altered))).is_err(), "byte {position}");
        }
        assert!(matches!(read("nothing\n"), Err(WitnessError::NoLine { .. })));
    }

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let made = WitnessKey::open_or_make(folder.path()).unwrap().public_hex();
        assert_eq!(WitnessKey::open_or_make(folder.path()).unwrap().public_hex(), made);
        let path = folder.path().join(KEY_FILE);
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        set_mode(0o644);
        assert!(matches!(WitnessKey::read(folder.path()), Err(WitnessKeyError::Open { .. })));
        set_mode(0o640);
        assert!(WitnessKey::read(folder.path()).is_ok());
        fs::write(&path, "no key").unwrap();
        assert!(matches!(WitnessKey::read(folder.path()), Err(WitnessKeyError::Damaged { .. })));
    }
}
