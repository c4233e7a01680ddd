//! A Kamailio with the shipped configuration, a sidecar beside it, a SIP server behind it that accepts everything, and
//! phones that authenticate.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};

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
id = "dana"
extension = "2001"
roles = ["supervisor"]
supervises = ["support"]
"#;

const USERS: [&str; 4] = ["1001", "1002", "2001", "9999"];
const REALM: &str = "lab.example";

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
        let lab = Self::begin(transport, true);
        lab.wait_for_sidecar();
        lab
    }

    /// As [`KamailioLab::start`], but without a sidecar.
    pub fn without_sidecar(transport: Transport) -> Self {
        Self::begin(transport, false)
    }

    fn begin(transport: Transport, with_sidecar: bool) -> Self {
        let pbx = SipServer::start();
        let (sip, sidecar_address) = (free_udp(), free_tcp());
        let folder = Folder::with("acme.toml", ORGANIZATION);
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
            + &define("QW_EVAPI", sidecar_address.to_string());
        if transport == Transport::Evapi {
            settings += "#!define WITH_EVAPI\n";
        }
        let users: String =
            USERS.iter().map(|user| format!("    $sht(passwords=>{user}) = \"{}\";\n", password(user))).collect();
        fs::write(run.path().join("queuewarden-local.cfg"), settings).unwrap();
        let users = format!("event_route[htable:mod-init] {{\n{users}}}\n");
        fs::write(run.path().join("queuewarden-users.cfg"), users).unwrap();
        fs::copy(project().join("config/kamailio/kamailio.cfg"), run.path().join("kamailio.cfg")).unwrap();
        // The sidecar first: after a failed attempt Kamailio waits 3 s before it connects again.
        let sidecar = with_sidecar.then(|| Sidecar::start(&folder));
        let log = fs::File::create(run.path().join("log")).unwrap();
        let kamailio = Command::new(installed())
            .args(["-f", "kamailio.cfg", "-DD", "-E", "-m", "256", "-M", "8", "-Y", "."])
            .current_dir(run.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Kamailio, which tests/run installs");
        let lab = Self { transport, sip, sidecar_address, run, folder, sidecar, kamailio, pbx };
        let began = Instant::now();
        while lab.phone("1001").ask_once("OPTIONS", "", &[], None).is_none() {
            assert!(began.elapsed() < PATIENCE, "Kamailio does not start: {}", lab.log());
        }
        lab
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
        fs::read_to_string(self.run.path().join("log")).unwrap()
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
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.kamailio.kill();
        let _ = self.kamailio.wait();
    }
}

fn installed() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    cache.join("queuewarden/kamailio/bin/kamailio")
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn password(user: &str) -> String {
    format!("pw{user}")
}

/// A SIP server that answers 200 to every request, and keeps the requests.
pub struct SipServer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SipServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let (requests, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (thread_requests, thread_stop) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !thread_stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let answer = reply(&request, "200 OK");
                let is_answered = !request.starts_with("ACK") && !request.starts_with("SIP/2.0");
                thread_requests.lock().unwrap().push(request);
                if is_answered {
                    socket.send_to(answer.as_bytes(), from).unwrap();
                }
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    /// The received requests of this method.
    pub fn requests(&self, method: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.starts_with(&format!("{method} "))).cloned().collect()
    }
}

impl Drop for SipServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A SIP reply to the request.
fn reply(request: &str, status: &str) -> String {
    let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
    let kept = request.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    let to = request.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = if to.contains("tag=") { "" } else { ";tag=pbx" };
    format!("SIP/2.0 {status}\r\n{kept}{to}{tag}\r\nContact: <sip:pbx@127.0.0.1>\r\nContent-Length: 0\r\n\r\n")
}

/// A phone that authenticates as its user.
pub struct Phone {
    user: &'static str,
    password: String,
    socket: UdpSocket,
    server: SocketAddr,
    calls: AtomicU32,
    /// The Call-ID of the next requests; `None`: a new one for each.
    pub call_id: Option<String>,
    /// The tag of `To`, for requests within a dialog.
    pub to_tag: Option<&'static str>,
}

impl Phone {
    fn new(user: &'static str, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let password = password(user);
        Self { user, password, socket, server, calls: AtomicU32::new(0), call_id: None, to_tag: None }
    }

    pub fn with_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// Dials, and returns the final status.
    pub fn dial(&self, number: &str) -> u16 {
        self.ask("INVITE", number, &[])
    }

    /// Sends the request, with credentials when they are asked for, and returns the final status.
    pub fn ask(&self, method: &str, number: &str, headers: &[&str]) -> u16 {
        let challenge = self.ask_once(method, number, headers, None).expect("an answer");
        if !challenge.starts_with("SIP/2.0 407") && !challenge.starts_with("SIP/2.0 401") {
            return status(&challenge);
        }
        let uri = self.uri(number);
        let field = |name: &str| {
            let from = challenge.split_once(&format!("{name}=\"")).expect(&challenge).1;
            from.split('"').next().unwrap().to_owned()
        };
        let (realm, nonce) = (field("realm"), field("nonce"));
        let first = hash(&format!("{}:{realm}:{}", self.user, self.password));
        let second = hash(&format!("{method}:{uri}"));
        let response = hash(&format!("{first}:{nonce}:00000001:c:auth:{second}"));
        let credentials = format!(
            "Proxy-Authorization: Digest username=\"{}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"{uri}\",\
             qop=auth,nc=00000001,cnonce=\"c\",response=\"{response}\",algorithm=MD5",
            self.user
        );
        status(&self.ask_once(method, number, headers, Some(&credentials)).expect("an answer"))
    }

    /// Sends the request and waits for a final answer; `None` after the read timeout.
    pub fn ask_once(&self, method: &str, number: &str, headers: &[&str], credentials: Option<&str>) -> Option<String> {
        let request = self.request(method, number, headers, credentials);
        let patience = if method == "OPTIONS" { Duration::from_millis(200) } else { PATIENCE };
        self.socket.set_read_timeout(Some(patience)).unwrap();
        self.socket.send_to(request.as_bytes(), self.server).unwrap();
        let answer = self.final_answer(&request)?;
        if method == "INVITE" {
            let ack = acknowledgement(&request, &answer);
            self.socket.send_to(ack.as_bytes(), self.server).unwrap();
        }
        Some(answer)
    }

    /// Sends the request and a CANCEL after the provisional answer 100; returns the final status.
    pub fn ask_and_cancel(&self, number: &str, credentials: &str) -> u16 {
        let request = self.request("INVITE", number, &[], Some(credentials));
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.socket.send_to(request.as_bytes(), self.server).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"SIP/2.0 100"));
        let kept = ["Via:", "From:", "To:", "Call-ID:", "Max-Forwards:"];
        let kept = request.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
        let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
        let (start, cseq) = (request.lines().next().unwrap().replace("INVITE", "CANCEL"), "CSeq: 1 CANCEL");
        let cancel = format!("{start}\r\n{kept}{cseq}\r\nContent-Length: 0\r\n\r\n");
        self.socket.send_to(cancel.as_bytes(), self.server).unwrap();
        loop {
            let answer = self.final_answer(&request).expect("an answer");
            if answer.contains("CSeq: 1 INVITE") {
                self.socket.send_to(acknowledgement(&request, &answer).as_bytes(), self.server).unwrap();
                return status(&answer);
            }
        }
    }

    /// Credentials that Kamailio accepts for a call of this number.
    pub fn credentials(&self, number: &str) -> String {
        let challenge = self.ask_once("INVITE", number, &[], None).unwrap();
        let field = |name: &str| {
            let from = challenge.split_once(&format!("{name}=\"")).expect(&challenge).1;
            from.split('"').next().unwrap().to_owned()
        };
        let (realm, nonce, uri) = (field("realm"), field("nonce"), self.uri(number));
        let first = hash(&format!("{}:{realm}:{}", self.user, self.password));
        let response = hash(&format!("{first}:{nonce}:00000001:c:auth:{}", hash(&format!("INVITE:{uri}"))));
        format!(
            "Proxy-Authorization: Digest username=\"{}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"{uri}\",\
             qop=auth,nc=00000001,cnonce=\"c\",response=\"{response}\",algorithm=MD5",
            self.user
        )
    }

    fn uri(&self, number: &str) -> String {
        if number.is_empty() { format!("sip:{}", self.server) } else { format!("sip:{number}@{}", self.server) }
    }

    fn request(&self, method: &str, number: &str, headers: &[&str], credentials: Option<&str>) -> String {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let here = self.socket.local_addr().unwrap();
        let (uri, user) = (self.uri(number), self.user);
        let call_id = self.call_id.clone().unwrap_or_else(|| format!("{call}-{}@phone", here.port()));
        let to_tag = self.to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let more: String = headers.iter().copied().chain(credentials).map(|header| format!("{header}\r\n")).collect();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{}x{call};rport\r\n\
             From: <sip:{user}@{REALM}>;tag=f{call}\r\nTo: <{uri}>{to_tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 {method}\r\nContact: <sip:{user}@{here}>\r\nMax-Forwards: 70\r\n{more}Content-Length: 0\r\n\r\n",
            here.port()
        )
    }

    fn final_answer(&self, request: &str) -> Option<String> {
        let call_id = request.lines().find(|line| line.starts_with("Call-ID:")).unwrap();
        let mut buffer = vec![0; 65_536];
        loop {
            let length = self.socket.recv(&mut buffer).ok()?;
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if answer.contains(call_id) && !answer.starts_with("SIP/2.0 1") {
                return Some(answer);
            }
        }
    }
}

fn acknowledgement(request: &str, answer: &str) -> String {
    let kept = ["Via:", "From:", "Call-ID:", "Max-Forwards:"];
    let kept = request.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    let to = answer.lines().find(|line| line.starts_with("To:")).unwrap();
    let start = request.lines().next().unwrap().replace("INVITE", "ACK");
    format!("{start}\r\n{kept}{to}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(answer)
}

fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
