//! Tells the witness the last lines of the audit log, every interval.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::audit::witness::WitnessKey;
use crate::config::audit::{SyslogAddress, WitnessSettings, WitnessTarget};
use crate::limits::WITNESS_TIMEOUT;
use crate::sidecar::{Clock, Sidecar};

/// Pause between two looks whether the command of a witness has ended.
const EXEC_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The priority of a syslog message: facility `log audit` (13), severity `informational` (6).
const SYSLOG_PRIORITY: u32 = 13 * 8 + 6;
/// The mode of the file of a witness.
const FILE_MODE: u32 = 0o640;

/// Why a witness was not told.
#[derive(Debug, Error)]
enum TellError {
    /// The file, the socket or the command cannot be used.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The name of the host has no address.
    #[error("the host has no address")]
    NoAddress,
    /// The command failed.
    #[error("the command ended with {0}")]
    Failed(std::process::ExitStatus),
    /// The command did not end in time.
    #[error("the command did not end within {} s: it was killed", WITNESS_TIMEOUT.as_secs())]
    TimedOut,
}

/// Tells the witness until the process stops. A witness that fails is counted each time, and logged when it begins to
/// fail and when it works again.
pub(super) async fn run(sidecar: Arc<Sidecar>, key: WitnessKey, stop: CancellationToken) {
    let settings = sidecar.settings.audit.as_ref().map(|audit| audit.witness.clone());
    let Some(WitnessSettings { target: Some(target), interval: every }) = settings else { return };
    let target = Arc::new(target);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(audit) = sidecar.gate.audit() else { return };
        let line = key.line(&audit.heads(), Clock::system().0);
        let target = Arc::clone(&target);
        let told = spawn_blocking(move || tell(&target, &line)).await;
        let error = match told {
            Ok(told) => told.err().map(|error| error.to_string()),
            Err(panicked) => Some(panicked.to_string()),
        };
        audit.count_witness(error.is_none());
        let failed_before = std::mem::replace(&mut fails, error.is_some());
        match error {
            Some(error) if !failed_before => tracing::error!(error, "the witness of the audit log cannot be told"),
            None if failed_before => tracing::info!("the witness of the audit log can be told again"),
            _ => {}
        }
    }
}

fn tell(target: &WitnessTarget, line: &str) -> Result<(), TellError> {
    match target {
        WitnessTarget::File(path) => {
            let mut options = std::fs::File::options();
            let mut file = options.append(true).create(true).mode(FILE_MODE).open(path)?;
            file.write_all(format!("{line}\n").as_bytes())?;
            Ok(file.sync_data()?)
        }
        WitnessTarget::Syslog(address) => tell_syslog(address, line),
        WitnessTarget::Exec(words) => tell_command(words, line),
    }
}

fn tell_syslog(address: &SyslogAddress, line: &str) -> Result<(), TellError> {
    let process = std::process::id();
    match address {
        SyslogAddress::Socket(path) => {
            // The form that every local daemon reads (RFC 3164), which sets the time itself.
            let message = format!("<{SYSLOG_PRIORITY}>queuewarden[{process}]: {line}");
            UnixDatagram::unbound()?.send_to(message.as_bytes(), path)?;
        }
        SyslogAddress::Host(host) => {
            let address = host.to_socket_addrs()?.next().ok_or(TellError::NoAddress)?;
            let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            let message = format!("<{SYSLOG_PRIORITY}>1 - - queuewarden {process} witness - {line}");
            let socket = UdpSocket::bind(any)?;
            // A connected socket reports that nobody listens, once the answer of an earlier message is there.
            socket.connect(address)?;
            socket.send(message.as_bytes())?;
        }
    }
    Ok(())
}

/// Runs the command with the line on its standard input.
fn tell_command(words: &[String], line: &str) -> Result<(), TellError> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read its input says by its status whether it failed.
        input.write_all(format!("{line}\n").as_bytes()).ok();
    }
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(TellError::Failed(status)) };
        }
        if started.elapsed() >= WITNESS_TIMEOUT {
            child.kill().ok();
            child.wait()?;
            return Err(TellError::TimedOut);
        }
        sleep(EXEC_POLL_INTERVAL);
    }
}
