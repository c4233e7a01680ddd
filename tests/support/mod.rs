//! Parts of several test programs: a configuration folder, the real program on free ports, and plain clients.
//!
//! A test ends only the processes that it started, and every wait has a bound.

#![allow(dead_code, reason = "each test binary uses its part of this")]

pub mod certificates;
pub mod kamailio_lab;
pub mod misbehavior;
pub mod model_asterisk;
pub mod model_freeswitch;
pub mod model_server;
pub mod random_source;
pub mod service_manager;
pub mod sip;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The bound of every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The folder of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A temporary configuration folder: the shipped role models, and the organization file of the test.
pub struct Folder {
    folder: Arc<tempfile::TempDir>,
}

/// An address at which nobody listens: the port is reserved.
pub const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

impl Folder {
    /// The shipped demo configuration, listening on free ports.
    pub fn demo() -> Self {
        let organization = fs::read_to_string(project().join("config/organizations/acme.toml")).unwrap();
        Self::with("acme.toml", &organization)
    }

    /// A folder with this organization file.
    pub fn with(file: &str, organization: &str) -> Self {
        let this = Self { folder: Arc::new(tempfile::tempdir().unwrap()) };
        fs::create_dir(this.path().join("organizations")).unwrap();
        fs::create_dir(this.path().join("models")).unwrap();
        for model in fs::read_dir(project().join("config/models")).unwrap() {
            let model = model.unwrap();
            fs::copy(model.path(), this.path().join("models").join(model.file_name())).unwrap();
        }
        this.write(
            "queuewarden.toml",
            "[listen]\nline = \"127.0.0.1:0\"\nline_unix = \"run/line.sock\"\nfastagi = \"127.0.0.1:0\"\n\
             freeswitch = \"127.0.0.1:0\"\nkamailio = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nadmin_unix = \"run/admin.sock\"\n[state]\nstore = \"memory\"\n",
        );
        this.write(&format!("organizations/{file}"), organization);
        this
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the folder. What is neither TOML nor CSV is a secret, which others may not read.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        if path.extension().is_some_and(|extension| extension == "toml" || extension == "csv") {
            fs::write(&path, text).unwrap();
        } else {
            write_secret(&path, text);
        }
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// Adds a link to the Asterisk at this address, with these further keys.
    pub fn link_to_asterisk(&self, name: &str, address: SocketAddr, keys: &str) {
        self.write("ami.secret", "s3cret\n");
        let table = format!(
            "[[connect.asterisk_ami]]\nname = \"{name}\"\norganization = \"acme\"\naddress = \"{address}\"\n\
             username = \"queuewarden\"\nsecret_file = \"ami.secret\"\npoll_interval_seconds = 1\n{keys}\n"
        );
        self.write("queuewarden.toml", &(self.read("queuewarden.toml") + &table));
    }

    /// Sets the session store to disk.
    pub fn durable(self) -> Self {
        self.replace("queuewarden.toml", "store = \"memory\"", "store = \"disk\"");
        self
    }

    /// Replaces text in a file of the folder. Panics if the file does not contain the text.
    pub fn replace(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{from:?} is not in {file}");
        self.write(file, &text.replace(from, to));
    }
}

/// Writes a file that others may not read.
pub fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs the real program with these arguments to its end; returns its status and standard output.
pub fn run(arguments: &[&str]) -> (ExitStatus, String) {
    let output = binary().args(arguments).output().unwrap();
    // Errors are on stderr.
    let text = if output.status.success() { output.stdout } else { [output.stdout, output.stderr].concat() };
    (output.status, String::from_utf8(text).unwrap())
}

/// The real program.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_queuewarden"))
}

/// A running sidecar, killed when the test ends.
pub struct Sidecar {
    child: Child,
    /// The lines that the program printed at its start.
    pub banner: Vec<String>,
    addresses: HashMap<String, String>,
    log: mpsc::Receiver<String>,
    /// Keeps the folder as long as the process uses it.
    folder: Option<Arc<tempfile::TempDir>>,
}

impl Sidecar {
    /// Starts the program on the folder and waits until it listens.
    pub fn start(folder: &Folder) -> Self {
        let started = Self::try_start(folder.path());
        let mut started = started.unwrap_or_else(|(status, text)| panic!("did not start: {status}: {text}"));
        started.folder = Some(Arc::clone(&folder.folder));
        started
    }

    /// Starts the program.
    ///
    /// # Errors
    ///
    /// The exit status and the output, if the program ends instead of listening.
    pub fn try_start(folder: &Path) -> Result<Self, (ExitStatus, String)> {
        let mut command = binary();
        command.arg("--config").arg(folder);
        Self::try_start_as(command)
    }

    /// As [`Sidecar::try_start`], with a command that becomes the program.
    pub fn try_start_as(mut command: Command) -> Result<Self, (ExitStatus, String)> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines_of(child.stderr.take().unwrap());
        let output = lines_of(child.stdout.take().unwrap());
        let mut banner = vec![];
        let mut addresses = HashMap::new();
        while let Ok(line) = output.recv_timeout(PATIENCE) {
            if let Some((name, address)) = line.strip_prefix("listening ").and_then(|rest| rest.split_once(' ')) {
                addresses.insert(name.to_owned(), address.trim_start_matches("http://").to_owned());
            }
            let last = line.starts_with("try it:");
            banner.push(line);
            if last {
                return Ok(Self { child, banner, addresses, log, folder: None });
            }
        }
        let _ = child.kill();
        // Errors are on stderr. The process has ended, so the log ends too.
        banner.extend(log.iter());
        Err((child.wait().unwrap(), banner.join("\n")))
    }

    /// The address of the listener of this name.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name].parse().unwrap()
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.addresses[name])
    }

    pub fn line(&self) -> LineClient<TcpStream> {
        LineClient::new(connect(self.address("line")))
    }

    /// Asks one question of the line dialect on a new connection; `question` has no id and no line end.
    pub fn ask(&self, question: &str) -> String {
        self.line().ask(question)
    }

    /// Sends a FastAGI environment with this URL path and these arguments, as Asterisk does; returns the variables of
    /// the answer.
    pub fn agi(&self, account: &str, path: &str, arguments: &[&str]) -> HashMap<String, String> {
        variables(&self.agi_bytes(agi_environment(account, path, arguments).as_bytes()))
    }

    /// Sends raw bytes to the FastAGI listener, closes our side, and returns the answer.
    pub fn agi_bytes(&self, bytes: &[u8]) -> String {
        let mut stream = connect(self.address("fastagi"));
        stream.write_all(bytes).unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// The body of a successful GET on the admin listener.
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.try_get(path);
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub fn try_get(&self, path: &str) -> (u16, String) {
        let mut stream = connect(self.address("admin"));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a response");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.to_owned()
        };
        (status, body)
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/status")).unwrap()
    }

    /// The value of a series, written as in the exposition: `name{label="value",…}`.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics");
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no series {series}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
        if name == "STOP" {
            wait_until("every thread to stop", || self.is_stopped());
        }
    }

    /// Whether SIGSTOP has stopped every thread: it takes effect later than `kill` ends.
    fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // The state follows the name of the program in brackets.
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// Sends SIGHUP and waits for the end of the reload; returns `last_reload` of `/status`.
    pub fn reload(&self) -> serde_json::Value {
        let count = || {
            let count_of = |result| self.metric(&format!("queuewarden_policy_reloads_total{{result=\"{result}\"}}"));
            count_of("success") + count_of("failure")
        };
        let before = count();
        self.signal("HUP");
        wait_until("the reload", || count() > before);
        self.status()["last_reload"].clone()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the sidecar does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line with this text; returns it last, after the lines before it that no earlier call returned.
    pub fn log_until(&self, text: &str) -> Vec<String> {
        self.log_until_all(&[text])
    }

    /// As [`Sidecar::log_until`], until each of the texts was in one of the lines.
    pub fn log_until_all(&self, texts: &[impl AsRef<str>]) -> Vec<String> {
        let mut lines: Vec<String> = vec![];
        let mut missing: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        while !missing.is_empty() {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{missing:?} is not in the log: {lines:#?}"));
            missing.retain(|text| !line.contains(text));
            lines.push(line);
        }
        lines
    }

    /// Ends the sidecar by SIGTERM and returns the log lines that no earlier call returned: all of them, because the
    /// process closes its log.
    pub fn log_at_end(mut self) -> Vec<String> {
        self.signal("TERM");
        assert!(self.wait().success());
        let mut lines = vec![];
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return lines,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the log does not end: {lines:#?}"),
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the line dialect.
pub struct LineClient<S> {
    pub stream: S,
    buffer: Vec<u8>,
    questions: usize,
}

impl<S: Read + Write> LineClient<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: vec![], questions: 0 }
    }

    /// Asks with a new id and returns the reply without the id.
    pub fn ask(&mut self, question: &str) -> String {
        self.questions += 1;
        let id = format!("q{}", self.questions);
        self.send(format!("{id} {question}\n").as_bytes());
        let reply = self.line();
        reply.strip_prefix(&format!("{id} ")).unwrap_or_else(|| panic!("{reply:?} does not echo {id}")).to_owned()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line")
    }

    /// The next line, or `None` when the peer ended the connection.
    pub fn try_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return None,
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// A connection with timeouts, so that a test fails instead of hanging.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Closes our side of the connection.
pub fn close_our_side(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

/// A FastAGI environment as Asterisk sends it.
pub fn agi_environment(account: &str, path: &str, arguments: &[&str]) -> String {
    let mut text = format!(
        "agi_network: yes\nagi_network_script: {path}\nagi_request: agi://127.0.0.1:4573/{path}\n\
         agi_channel: PJSIP/{account}-00000000\nagi_language: en\nagi_type: PJSIP\nagi_uniqueid: lab-1795294048.55238\n\
         agi_version: 22.10.1\nagi_callerid: 5551234\nagi_calleridname: Ev: il, \"x\"\nagi_callingpres: 0\n\
         agi_callingani2: 0\nagi_callington: 0\nagi_callingtns: 0\nagi_dnid: unknown\nagi_rdnis: unknown\n\
         agi_context: queuewarden\nagi_extension: s\nagi_priority: 6\nagi_enhanced: 0.0\nagi_accountcode: {account}\n\
         agi_threadid: 140417567909568\n"
    );
    for (position, argument) in arguments.iter().enumerate() {
        text += &format!("agi_arg_{}: {argument}\n", position + 1);
    }
    text + "\n"
}

/// A header block as FreeSWITCH sends it for a channel with these variables, with the values as sent.
pub fn channel_block(destination: &str, variables: &[(&str, &str)]) -> String {
    let mut text = format!(
        "Event-Name: CHANNEL_DATA\nCore-UUID: 94760da4-16f0-430b-a9da-50ccc80ff804\nFreeSWITCH-IPv6: fd00%3A%3A2\n\
         Event-Date-GMT: Sat,%2021%20Nov%202026%2020%3A58%3A28%20GMT\nChannel-Caller-ID-Number: 2001\n\
         Channel-Name: sofia/internal/2001%40pbx\nUnique-ID: 26da5765-5405-4b58-84fc-10dbfca1c733\n\
         Caller-Caller-ID-Name: %22Ev%3A%20il%22%0A\nCaller-Caller-ID-Number: 2001\nCaller-ANI: 2001\n\
         Caller-Destination-Number: {destination}\nvariable_sip_from_user: 2001\nvariable_qw_verdict: deny\n"
    );
    for (name, value) in variables {
        text += &format!("variable_{name}: {value}\n");
    }
    text + "Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: static\nControl: single-channel\n\n"
}

/// A value as FreeSWITCH writes it.
pub fn url_encoded(value: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*/,~!'()$".contains(&byte);
    value.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The variables that the commands to FreeSWITCH set, all in one `multiset`, without any other command.
pub fn channel_variables(commands: &str) -> HashMap<String, String> {
    let set = commands
        .strip_prefix("sendmsg\ncall-command: execute\nexecute-app-name: multiset\nexecute-app-arg: ")
        .and_then(|rest| rest.strip_suffix("\n\nexit\n\n"))
        .unwrap_or_else(|| panic!("{commands:?}"));
    let pairs = set.split(' ').map(|pair| pair.split_once('=').expect(set));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The variables that FastAGI commands set.
pub fn variables(commands: &str) -> HashMap<String, String> {
    let set = commands.lines().map(|line| {
        let (name, value) = line.strip_prefix("SET VARIABLE ").and_then(|rest| rest.split_once(' ')).expect(line);
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    set.collect()
}

/// A connection as FreeSWITCH makes it: silent until it receives `connect`.
pub struct FreeSwitchPeer(pub TcpStream);

impl FreeSwitchPeer {
    /// The replies of FreeSWITCH to one `sendmsg` and one `exit`.
    pub const GOODBYE: &'static str = "Content-Type: command/reply\nReply-Text: +OK\n\n\
         Content-Type: command/reply\nReply-Text: +OK bye\n\n\
         Content-Type: text/disconnect-notice\nContent-Disposition: disconnect\nContent-Length: 67\n\n\
         Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n";

    pub fn ring(sidecar: &Sidecar) -> Self {
        let mut stream = connect(sidecar.address("freeswitch"));
        let mut greeting = [0; 9];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"connect\n\n");
        Self(stream)
    }

    pub fn say(&mut self, text: &[u8]) {
        self.0.write_all(text).unwrap();
    }

    /// Everything up to `exit`, or to the end of the connection.
    pub fn commands(&mut self) -> String {
        let (mut received, mut chunk) = (vec![], [0; 4096]);
        while !received.ends_with(b"exit\n\n") {
            match self.0.read(&mut chunk).unwrap() {
                0 => break,
                count => received.extend_from_slice(&chunk[..count]),
            }
        }
        String::from_utf8(received).unwrap()
    }

    /// Sends the block, replies to the commands and closes; returns the variables that were set.
    pub fn ask(mut self, block: &str) -> HashMap<String, String> {
        self.say(block.as_bytes());
        let commands = self.commands();
        self.say(Self::GOODBYE.as_bytes());
        channel_variables(&commands)
    }
}

/// The payload of the next netstring.
pub fn netstring(stream: &mut impl Read) -> String {
    let (mut length, mut byte) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut byte).unwrap();
        if byte == *b":" {
            break;
        }
        length.push(char::from(byte[0]));
    }
    let mut payload = vec![0; length.parse::<usize>().expect(&length) + 1];
    stream.read_exact(&mut payload).unwrap();
    assert_eq!(payload.pop(), Some(b','));
    String::from_utf8(payload).unwrap()
}

/// Waits until the condition is true; panics with `what` after [`PATIENCE`].
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole += &rest[..size];
        body = &rest[size + 2..];
    }
    whole
}

// For single stories --------------------------------------------------------------------------------------------------

impl Folder {
    /// The position of the first occurrence of the text in a file of the folder, as problems name it:
    /// `file:line:column`.
    pub fn place(&self, file: &str, text: &str) -> String {
        self.place_from(file, 0, text)
    }

    /// As [`Folder::place`], from this byte of the file on.
    pub fn place_from(&self, file: &str, start: usize, text: &str) -> String {
        let content = self.read(file);
        let found = content.get(start..).unwrap().find(text).unwrap_or_else(|| panic!("{text:?} is not in {file}"));
        let before = content.get(..start + found).unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        format!("{}:{line}:{column}", self.path().join(file).display())
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).unwrap();
    }
}

impl Sidecar {
    /// A client of the line dialect on the Unix socket.
    pub fn unix_line(&self) -> LineClient<UnixStream> {
        LineClient::new(connect_unix(&self.socket("line_unix")))
    }

    /// Sends the signal this many times, as fast as a shell can.
    pub fn signal_often(&self, name: &str, times: usize) {
        let script = format!("i=0; while [ $i -lt {times} ]; do kill -s {name} {}; i=$((i+1)); done", self.id());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// Kills the process with SIGKILL, without a drain.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A connection to a Unix socket with timeouts.
pub fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request with these headers, each with its line end; returns the status and the body.
pub fn http(mut stream: impl Read + Write, method: &str, path: &str, headers: &str) -> (u16, String) {
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    let received = read_to_end(&mut stream);
    let status = received.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {received:?}")), received)
}

/// Every byte that the peer sends until it closes its side.
pub fn read_to_end(stream: &mut impl Read) -> String {
    let mut received = vec![];
    stream.read_to_end(&mut received).unwrap();
    String::from_utf8(received).unwrap()
}
