//! A Kamailio with the shipped configuration, a sidecar beside it, and a SIP server behind it.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::sip::{Phone, REALM, SipServer, password};
use crate::support::{Folder, PATIENCE, Sidecar, project, wait_until};

/// The organization of the lab; its extensions are the users of Kamailio.
const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"
feature_code_preset = "asterisk"
settings.supervisor.limit_to_assigned_queues = false

[[queues]]
id = "support"
number = "600"
[[queues]]
id = "night"
number = "602"

[[users]]
id = "alice"
extension = "1001"
roles = ["agent"]
queues = ["support"]
[[users]]
id = "bob"
extension = "1002"
roles = ["agent"]
queues = ["support"]
[[users]]
id = "carol"
extension = "1003"
roles = ["agent"]
queues = ["night"]
[[users]]
id = "dana"
extension = "2001"
roles = ["supervisor"]
supervises = ["support"]
"#;

const USERS: [&str; 5] = ["1001", "1002", "1003", "2001", "9999"];

/// How long Kamailio waits for a verdict.
pub const WAIT: Duration = Duration::from_secs(1);

/// How Kamailio and the sidecar are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Kamailio connects to the sidecar (`janssonrpcc`).
    JsonRpc,
    /// The sidecar connects to Kamailio (`evapi`).
    Evapi,
}

impl Transport {
    pub const BOTH: [Self; 2] = [Self::JsonRpc, Self::Evapi];

    pub const fn dialect(self) -> &'static str {
        match self {
            Self::JsonRpc => "jsonrpc",
            Self::Evapi => "evapi",
        }
    }
}

/// A running Kamailio, the sidecar beside it and the SIP server behind it.
pub struct KamailioLab {
    pub transport: Transport,
    sip: SocketAddr,
    /// The address of the connection between Kamailio and the sidecar: one of them listens on it, by the transport.
    pub sidecar_address: SocketAddr,
    run: tempfile::TempDir,
    pub folder: Folder,
    pub sidecar: Option<Sidecar>,
    kamailio: Child,
    pub pbx: SipServer,
}

impl KamailioLab {
    /// Starts all three, and waits until they are connected.
    pub fn start(transport: Transport) -> Self {
        let lab = Self::begin(transport, ORGANIZATION, true);
        lab.wait_for_sidecar();
        lab
    }

    /// As [`KamailioLab::start`], in an organization that differs in one line.
    pub fn with_organization(transport: Transport, line: &str, instead: &str) -> Self {
        assert!(ORGANIZATION.contains(line), "{line}");
        let lab = Self::begin(transport, &ORGANIZATION.replace(line, instead), true);
        lab.wait_for_sidecar();
        lab
    }

    /// As [`KamailioLab::start`], in an organization whose supervisors are limited to their queues.
    pub fn limited(transport: Transport) -> Self {
        Self::with_organization(transport, "settings.supervisor.limit_to_assigned_queues = false\n", "")
    }

    /// As [`KamailioLab::start`], but without a sidecar.
    pub fn without_sidecar(transport: Transport) -> Self {
        Self::begin(transport, ORGANIZATION, false)
    }

    fn begin(transport: Transport, organization: &str, with_sidecar: bool) -> Self {
        let pbx = SipServer::start();
        let (sip, sidecar_address) = (free_udp(), free_tcp());
        let folder = Folder::with("acme.toml", organization);
        match transport {
            Transport::JsonRpc => {
                folder.replace(
                    "queuewarden.toml",
                    "kamailio = \"127.0.0.1:0\"",
                    &format!("kamailio = \"{sidecar_address}\""),
                );
            }
            Transport::Evapi => {
                let text = folder.read("queuewarden.toml");
                folder.write("queuewarden.toml", &format!("{text}[connect]\nevapi = [\"{sidecar_address}\"]\n"));
            }
        }
        let run = tempfile::Builder::new().prefix("qw").tempdir_in("/tmp").unwrap();
        let define = |name: &str, value: String| format!("#!define {name} {value}\n");
        let mut settings = define("QW_LISTEN", format!("udp:{sip}"))
            + &define("QW_REALM", REALM.to_owned())
            + &define("QW_PBX_PORT", pbx.address.port().to_string())
            + &define("QW_SIDECAR_PORT", sidecar_address.port().to_string())
            + &define("QW_EVAPI", sidecar_address.to_string())
            + &define("QW_STATE", run.path().join("state").display().to_string())
            + &define("QW_REPORT_SECONDS", "2".to_owned())
            + &define("QW_REFER_SECONDS", "8".to_owned())
            // On a busy machine the shipped value is too short.
            + &define("QW_WAIT_MS", WAIT.as_millis().to_string());
        if transport == Transport::Evapi {
            settings += "#!define WITH_EVAPI\n";
        }
        let users: String =
            USERS.iter().map(|user| format!("    $sht(passwords=>{user}) = \"{}\";\n", password(user))).collect();
        fs::write(run.path().join("queuewarden-local.cfg"), settings).unwrap();
        let users = format!("event_route[htable:mod-init] {{\n{users}}}\n");
        fs::write(run.path().join("queuewarden-users.cfg"), users).unwrap();
        fs::copy(project().join("config/kamailio/kamailio.cfg"), run.path().join("kamailio.cfg")).unwrap();
        fs::create_dir(run.path().join("state")).unwrap();
        for table in ["version", "calls"] {
            let shipped = project().join("config/kamailio/state").join(table);
            fs::copy(shipped, run.path().join("state").join(table)).unwrap();
        }
        // The sidecar first: after a failed attempt Kamailio waits 3 s before it connects again.
        let sidecar = with_sidecar.then(|| Sidecar::start(&folder));
        let kamailio = spawn_kamailio(run.path());
        let lab = Self { transport, sip, sidecar_address, run, folder, sidecar, kamailio, pbx };
        lab.wait_for_kamailio();
        lab
    }

    fn wait_for_kamailio(&self) {
        let began = Instant::now();
        while self.phone("1001").ask_once("OPTIONS", "", &[], None).is_none() {
            assert!(began.elapsed() < PATIENCE, "Kamailio does not start: {}", self.log());
        }
    }

    /// Ends Kamailio without a warning, and starts it again.
    pub fn restart_kamailio(&mut self) {
        self.kill_kamailio();
        self.kamailio = spawn_kamailio(self.run.path());
        self.wait_for_kamailio();
    }

    /// Ends all processes of Kamailio.
    fn kill_kamailio(&mut self) {
        let group = format!("-{}", self.kamailio.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.kamailio.wait();
    }

    /// Ends the sidecar and starts it again.
    pub fn restart_sidecar(&mut self) {
        assert!(self.sidecar.take().unwrap().terminate().success());
        self.sidecar = Some(Sidecar::start(&self.folder));
    }

    /// The content of a file beside kamailio.cfg.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.run.path().join(name)).unwrap()
    }

    /// Waits until Kamailio gets verdicts.
    pub fn wait_for_sidecar(&self) {
        wait_until("Kamailio and queuewarden to meet", || self.phone("9999").dial("*13600") == 403);
    }

    pub fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().unwrap()
    }

    pub fn phone(&self, user: &'static str) -> Phone {
        Phone::new(user, self.sip)
    }

    /// The SIP address of Kamailio.
    pub const fn sip(&self) -> SocketAddr {
        self.sip
    }

    pub fn log(&self) -> String {
        self.file("log")
    }

    /// The number of decisions in `/metrics`.
    pub fn decided(&self, action: &str, verdict: &str, reason: &str) -> f64 {
        let dialect = self.transport.dialect();
        self.sidecar().metric(&format!(
            "queuewarden_decisions_total{{dialect=\"{dialect}\",action=\"{action}\",decision=\"{verdict}\",reason=\"{reason}\"}}"
        ))
    }
}

impl Drop for KamailioLab {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "TERM", &self.kamailio.id().to_string()]).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if matches!(self.kamailio.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill_kamailio();
    }
}

/// Starts Kamailio in this folder, in a process group of its own.
fn spawn_kamailio(folder: &std::path::Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(installed())
        .args(["-f", "kamailio.cfg", "-DD", "-E", "-m", "256", "-M", "8", "-Y", "."])
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("Kamailio, which tests/run installs")
}

fn installed() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    let installed = cache.join("queuewarden/kamailio/bin/kamailio");
    // Another version than that of tests/run.
    std::env::var_os("QUEUEWARDEN_KAMAILIO").map_or(installed, PathBuf::from)
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
