//! The part of systemd that a service sees: the notification socket, and sockets that outlive the process.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::support::{Folder, PATIENCE};

/// The notification socket of a service manager.
pub struct Manager(pub UnixDatagram);

impl Manager {
    pub fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next datagram with this line. The datagrams before must be watchdog notifications.
    pub fn receive(&self, wanted: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let lines: Vec<String> =
                std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line == wanted) {
                return lines;
            }
            assert_eq!(lines, ["WATCHDOG=1"], "before {wanted}");
        }
    }
}

/// Sockets that are passed as systemd passes them: from descriptor 3 on, in this order.
pub struct Sockets {
    fds: Vec<OwnedFd>,
    names: String,
}

impl Sockets {
    pub fn new(sockets: Vec<(&str, OwnedFd)>) -> Self {
        let names = sockets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(":");
        // Descriptors above 100, so that none is overwritten when the shell moves them to 3 and up.
        let above = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 100).unwrap();
        Self { fds: sockets.into_iter().map(|(_, fd)| above(fd)).collect(), names }
    }

    /// A command that starts the sidecar with these sockets.
    pub fn command(&self, folder: &Folder) -> Command {
        let folder = folder.path().to_str().unwrap();
        self.command_of(&[env!("CARGO_BIN_EXE_queuewarden"), "--config", folder])
    }

    /// A command that becomes this program with these sockets, under the umask of the shipped service.
    pub fn command_of(&self, words: &[&str]) -> Command {
        let mut script = String::from("umask 0077; export LISTEN_PID=$$; exec \"$@\"");
        for (position, fd) in self.fds.iter().enumerate() {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
            script += &format!(" {}<&{}", position + 3, fd.as_raw_fd());
        }
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg("bash").args(words);
        command.env("LISTEN_FDS", self.fds.len().to_string()).env("LISTEN_FDNAMES", &self.names);
        command
    }
}
