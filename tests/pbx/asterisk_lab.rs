//! An Asterisk with the shipped dialplan, a sidecar beside it, and phones.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Folder, PATIENCE, Sidecar, connect, project, wait_until};

/// The organization of the lab: its users are the endpoints of `tests/pbx/asterisk/conf/pjsip.conf`.
const ORGANIZATION: &str = r#"
organization = "acme"
model = "goto"
feature_code_preset = "asterisk"

[feature_codes]
"*17{target}" = "agent.login"
"*45" = "queue.toggle"

[[queues]]
id = "support"
number = "600"
[[queues]]
id = "sales"
number = "601"
[[queues]]
id = "night"
number = "602"
# Asterisk has no such queue: what happens when a login is allowed and cannot be carried out.
[[queues]]
id = "ghost"
number = "603"

[[users]]
id = "alice"
extension = "1001"
roles = ["agent"]
queues = ["support", "sales"]
[[users]]
id = "bob"
extension = "1002"
roles = ["agent"]
queues = ["ghost"]
[[users]]
id = "carol"
extension = "10011"
roles = ["agent"]
queues = ["support"]
[[users]]
id = "dana"
extension = "2001"
roles = ["supervisor"]
supervises = ["support"]
[[users]]
id = "paul"
extension = "3001"
"#;

/// Ports of one lab: SIP, AMI, FastAGI, HTTP, AMI over TLS, phones and media.
const PORTS_PER_LAB: u16 = 100;
const AMI: u16 = 1;
const FASTAGI: u16 = 2;
const HTTP: u16 = 3;
const AMI_TLS: u16 = 4;
const PHONES: u16 = 10;
const PHONES_COUNT: u16 = 7;
const MEDIA_OF_PHONES: u16 = 30;
/// sipp uses the given port and the one two above it.
const MEDIA_OF_A_PHONE: u16 = 4;
const MEDIA_OF_ASTERISK: u16 = 60;

/// The field with the id of the bridge in a line of `core show channels concise`.
const BRIDGE_FIELD: usize = 12;

/// A copy of the lab's configuration files of Asterisk, each of these files with this text behind what it has.
pub fn conf_with(additions: &[(&str, &str)]) -> tempfile::TempDir {
    let conf = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(project().join("tests/pbx/asterisk/conf")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, conf.path().join(path.file_name().unwrap())).unwrap();
    }
    for (file, text) in additions {
        let file = conf.path().join(file);
        let shipped = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(file, shipped + "\n" + text).unwrap();
    }
    conf
}

/// A running Asterisk, the sidecar beside it, and phones.
pub struct AsteriskLab {
    base: u16,
    /// Reserves the ports until the lab ends.
    _reservation: File,
    run: tempfile::TempDir,
    pub folder: Folder,
    pub sidecar: Option<Sidecar>,
    phones: AtomicU16,
    /// The folder of Asterisk's configuration files. `None`: that of the lab.
    conf: Option<PathBuf>,
}

impl AsteriskLab {
    /// Starts Asterisk and the sidecar, without login sessions.
    pub fn start() -> Self {
        Self::start_with(None, |_, _| ())
    }

    /// Starts an Asterisk with these configuration files, and the sidecar.
    pub fn start_unprepared(conf: &Path) -> Self {
        Self::start_with(Some(conf), |_, _| ())
    }

    /// As [`AsteriskLab::start`], with a link to Asterisk and a session store on disk. The account may remove members
    /// and nothing else.
    pub fn start_linked() -> Self {
        Self::start_linked_as("queuewarden", None, "")
    }

    /// The same, with an account that sees events, and with these keys of the link.
    pub fn start_linked_with(keys: &str) -> Self {
        Self::start_linked_as("link", None, keys)
    }

    /// The same, with Asterisk's configuration files in this folder.
    pub fn start_linked_on(conf: &Path, keys: &str) -> Self {
        Self::start_linked_as("link", Some(conf), keys)
    }

    /// The same, with the link to the port of TLS.
    pub fn start_linked_over_tls(conf: &Path, keys: &str) -> Self {
        Self::start_linked_at(&|base| base + AMI_TLS, "link", Some(conf), keys)
    }

    /// As [`AsteriskLab::start_linked_with`], with the link to this address.
    pub fn start_linked_to(address: std::net::SocketAddr, keys: &str) -> Self {
        Self::start_linked_at(&|_| address.port(), "link", None, keys)
    }

    fn start_linked_as(account: &str, conf: Option<&Path>, keys: &str) -> Self {
        Self::start_linked_at(&|base| base + AMI, account, conf, keys)
    }

    fn start_linked_at(port: &dyn Fn(u16) -> u16, account: &str, conf: Option<&Path>, keys: &str) -> Self {
        Self::start_with(conf, |folder, base| {
            let link = format!(
                "[[connect.asterisk_ami]]\nname = \"pbx-1\"\norganization = \"acme\"\naddress = \"127.0.0.1:{}\"\n\
                 username = \"{account}\"\nsecret_file = \"ami.secret\"\n{keys}\n[state]\nstore = \"disk\"\n",
                port(base)
            );
            folder.replace("queuewarden.toml", "[state]\nstore = \"memory\"\n", &link);
            folder.write("ami.secret", "s3cret\n");
            let secret = folder.path().join("ami.secret");
            std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        })
    }

    fn start_with(conf: Option<&Path>, prepare: impl FnOnce(&Folder, u16)) -> Self {
        let (base, reservation) = free_ports();
        let folder = Folder::with("acme.toml", ORGANIZATION);
        prepare(&folder, base);
        folder.replace(
            "queuewarden.toml",
            "fastagi = \"127.0.0.1:0\"",
            &format!("fastagi = \"127.0.0.1:{}\"", base + FASTAGI),
        );
        let keep = std::env::var_os("QUEUEWARDEN_KEEP_LAB").is_some(); // for reading Asterisk's log afterwards
        // A short path, because the path of a Unix socket is limited.
        let run = tempfile::Builder::new().prefix("qw").disable_cleanup(keep).tempdir_in("/tmp").unwrap();
        let sidecar = Some(Sidecar::start(&folder));
        let lab = Self {
            base,
            _reservation: reservation,
            sidecar,
            folder,
            run,
            phones: AtomicU16::new(0),
            conf: conf.map(Path::to_owned),
        };
        lab.start_asterisk();
        // On a busy machine half a second is too short; only the tests of a slow sidecar use the shipped value.
        lab.set_global("QW_WAIT_SECONDS", "5");
        lab
    }

    pub fn start_asterisk(&self) {
        let output = self.script().arg("start").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Asterisk did not start (tests/run installs it): {text}");
    }

    pub fn stop_asterisk(&self) {
        assert!(self.script().arg("stop").output().unwrap().status.success());
    }

    /// Ends Asterisk without letting it do anything.
    pub fn kill_asterisk(&self) {
        let pid = std::fs::read_to_string(self.run.path().join("pid")).unwrap();
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
        let process = Path::new("/proc").join(pid.trim());
        wait_until("Asterisk to be gone", || !process.join("exe").exists());
        std::fs::remove_file(self.run.path().join("pid")).unwrap();
    }

    pub fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().unwrap()
    }

    /// The FastAGI address of the sidecar.
    pub fn fastagi(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], self.base + FASTAGI))
    }

    /// The address of Asterisk's HTTP server, where its configuration has one.
    pub fn http(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], self.base + HTTP))
    }

    /// The AMI address of Asterisk.
    pub fn ami(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], self.base + AMI))
    }

    fn script(&self) -> Command {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
        let prefix = std::env::var_os("PREFIX").map_or_else(|| cache.join("queuewarden/asterisk"), PathBuf::from);
        let mut command = Command::new(project().join("tests/pbx/asterisk/lab"));
        command.env("PREFIX", prefix).env("RUN", self.run.path()).env("SIP_PORT", self.base.to_string());
        command.env("HTTP_PORT", (self.base + HTTP).to_string()).env("AMI_TLS_PORT", (self.base + AMI_TLS).to_string());
        command.env("AMI_PORT", (self.base + AMI).to_string()).env("SIDECAR", self.fastagi().to_string());
        command.env("RTP_START", (self.base + MEDIA_OF_ASTERISK).to_string());
        command.env("RTP_END", (self.base + PORTS_PER_LAB - 1).to_string());
        command.envs(self.conf.as_ref().map(|conf| ("CONF", conf)));
        command
    }

    /// The folder of the running Asterisk's configuration files.
    pub fn etc(&self) -> PathBuf {
        self.run.path().join("etc")
    }

    /// Asterisk's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.run.path().join("log/messages")).unwrap_or_default()
    }

    /// The output of a console command of Asterisk.
    pub fn cli(&self, command: &str) -> String {
        let output = self.script().arg("cli").arg(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn set_global(&self, name: &str, value: &str) {
        self.cli(&format!("dialplan set global {name} {value}"));
    }

    /// Whether the phone of `extension` is a member of the queue.
    pub fn is_member(&self, queue: &str, extension: &str) -> bool {
        self.member(queue, extension).is_some()
    }

    /// Whether the phone of `extension` is a member of the queue and takes no calls.
    pub fn is_paused(&self, queue: &str, extension: &str) -> bool {
        self.member(queue, extension).is_some_and(|line| line.contains("(paused"))
    }

    /// The line of `queue show` about the phone of `extension`.
    fn member(&self, queue: &str, extension: &str) -> Option<String> {
        let phone = format!("(PJSIP/{extension})");
        self.cli(&format!("queue show {queue}")).lines().find(|line| line.contains(&phone)).map(str::to_owned)
    }

    /// The running channels, one a line, fields separated by `!`.
    pub fn channels(&self) -> String {
        self.cli("core show channels concise")
    }

    /// Dials and expects an answer after which Asterisk hangs up: an allowed code.
    pub fn is_answered(&self, extension: &str, code: &str) -> bool {
        self.begin(extension, code).wait()
    }

    /// Dials in the background, expecting what [`AsteriskLab::is_answered`] does.
    pub fn begin(&self, extension: &str, code: &str) -> PhoneCall {
        self.dial(extension, code, "call.xml", &[])
    }

    /// Dials and expects 403 Forbidden.
    pub fn is_refused(&self, extension: &str, code: &str) -> bool {
        self.dial(extension, code, "deny.xml", &[]).wait()
    }

    /// Dials, expects an answer and stays for `stay`; the call goes on in the background.
    pub fn call(&self, extension: &str, number: &str, stay: Duration) -> PhoneCall {
        self.dial(extension, number, "stay.xml", &["-d", &stay.as_millis().to_string()])
    }

    fn dial(&self, extension: &str, number: &str, scenario: &str, more: &[&str]) -> PhoneCall {
        let call = self.phones.fetch_add(1, Ordering::Relaxed);
        let phone = call % PHONES_COUNT;
        let port = self.base + PHONES + phone;
        let media = self.base + MEDIA_OF_PHONES + phone * MEDIA_OF_A_PHONE;
        let scenario = project().join("tests/pbx/asterisk/sipp").join(scenario);
        let mut sipp = Command::new("sipp");
        sipp.arg("-sf").arg(scenario).args(["-m", "1", "-i", "127.0.0.1", "-nostdin", "-timeout_error"]);
        sipp.args([
            "-p",
            &port.to_string(),
            "-mp",
            &media.to_string(),
            "-timeout",
            // A step of a scenario has 15 s: on a busy machine a prompt takes several times its length.
            &format!("{}s", (PATIENCE * 3 / 2).as_secs()),
        ]);
        sipp.args(["-key", "user", extension, "-au", extension, "-ap", &format!("pw{extension}"), "-s", number]);
        let messages = self.run.path().join(format!("call{call}.sip"));
        let errors = messages.with_extension("errors");
        sipp.arg("-trace_msg").arg("-message_file").arg(&messages).arg("-trace_err").arg("-error_file").arg(&errors);
        sipp.args(more).arg(format!("127.0.0.1:{}", self.base));
        let child = sipp.current_dir(self.run.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        PhoneCall { sipp: child.expect("sipp, which tests/run installs"), traces: [messages, errors] }
    }

    /// A connection to AMI with all rights.
    pub fn admin(&self) -> TcpStream {
        let mut ami = connect(self.ami());
        read_until(&mut ami, "\r\n");
        act(&mut ami, "Action: Login\r\nUsername: admin\r\nSecret: admin\r\nEvents: off\r\n\r\n");
        ami
    }

    /// Has AMI originate a call of `extension` to a number its phone could dial.
    pub fn originate(&self, extension: &str, number: &str) {
        let mut ami = self.admin();
        act(
            &mut ami,
            &format!(
                "Action: Originate\r\nChannel: Local/{number}@phones\r\nAccount: {extension}\r\n\
                 Application: Wait\r\nData: 1\r\nTimeout: 10000\r\nAsync: true\r\n\r\n"
            ),
        );
    }

    /// Has AMI call the phone of `extension` and connect it with `number`, as a click-to-dial program does.
    pub fn originate_at(&self, extension: &str, number: &str) {
        let mut ami = self.admin();
        act(
            &mut ami,
            &format!(
                "Action: Originate\r\nChannel: PJSIP/{extension}\r\nContext: phones\r\nExten: {number}\r\n\
                 Priority: 1\r\nTimeout: 10000\r\nAsync: true\r\n\r\n"
            ),
        );
    }

    /// Puts a customer into the queue and waits until the agent's phone has answered.
    pub fn customer_reaches(&self, queue: &str, extension: &str) -> PhoneCall {
        let call = self.call("3001", queue, Duration::from_secs(30));
        // A channel that has answered may not be bridged yet; only a bridge with the customer is the queue's call.
        wait_until("the agent and the customer to be bridged", || {
            let channels = self.channels();
            let mut agents = channels.lines().filter(|line| line.starts_with(&format!("PJSIP/{extension}-")));
            agents.any(|line| line.split('!').nth(BRIDGE_FIELD).is_some_and(|bridge| !bridge.is_empty()))
        });
        call
    }

    /// The number of running supervisions.
    pub fn supervisions(&self, mode: &str) -> f64 {
        self.sidecar().metric(&format!("queuewarden_supervisions{{mode=\"{mode}\"}}"))
    }

    /// The number of decisions of the FastAGI dialect.
    pub fn decided(&self, action: &str, verdict: &str, reason: &str) -> f64 {
        self.sidecar().metric(&format!(
            "queuewarden_decisions_total{{dialect=\"fastagi\",action=\"{action}\",decision=\"{verdict}\",reason=\"{reason}\"}}"
        ))
    }
}

impl Drop for AsteriskLab {
    fn drop(&mut self) {
        let _ = self.script().arg("stop").output();
    }
}

/// A call of a phone; hung up when the test ends.
pub struct PhoneCall {
    sipp: Child,
    /// The files with the SIP messages and the errors of the call.
    traces: [PathBuf; 2],
}

impl PhoneCall {
    /// Waits for the end of the call. Returns whether the call followed its scenario; if it did not, prints its
    /// messages.
    pub fn wait(mut self) -> bool {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            if let Some(status) = self.sipp.try_wait().unwrap() {
                if !status.success() {
                    let traces = self.traces.each_ref().map(|file| std::fs::read_to_string(file).unwrap_or_default());
                    eprintln!("sipp ended with {status}:\n{}\n{}", traces[0], traces[1]);
                }
                return status.success();
            }
            assert!(Instant::now() < deadline, "the phone does not end its call");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PhoneCall {
    fn drop(&mut self) {
        let _ = self.sipp.kill();
        let _ = self.sipp.wait();
    }
}

fn act(ami: &mut TcpStream, action: &str) {
    ami.write_all(action.as_bytes()).unwrap();
    let reply = read_until(ami, "\r\n\r\n");
    assert!(reply.contains("Response: Success"), "{action} was answered with {reply}");
}

/// The bytes from AMI up to and including `end`.
pub fn read_until(ami: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        ami.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    text
}

/// The first port of a free block, and a locked file that keeps other labs from the block: each server of the lab binds
/// its ports only later.
fn free_ports() -> (u16, File) {
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() ^ std::process::id();
    for _ in 0..1_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let base = 20_000 + u16::try_from((seed >> 8) % 120).unwrap() * PORTS_PER_LAB;
        let reservation = File::create(std::env::temp_dir().join(format!("queuewarden-lab-ports-{base}"))).unwrap();
        if reservation.try_lock().is_err() {
            continue;
        }
        let sockets: Result<Vec<_>, _> =
            (0..PORTS_PER_LAB).map(|port| UdpSocket::bind(("127.0.0.1", base + port))).collect();
        let listeners: Result<Vec<_>, _> =
            [AMI, FASTAGI].map(|port| TcpListener::bind(("127.0.0.1", base + port))).into_iter().collect();
        if sockets.is_ok() && listeners.is_ok() {
            return (base, reservation);
        }
    }
    panic!("no free ports");
}
