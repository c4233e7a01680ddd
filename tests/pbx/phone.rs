//! A SIP phone in the process of the test: it registers, calls, answers and transfers. A test that fails prints the
//! messages of its phones.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use md5::{Digest as _, Md5};

use crate::pbx::asterisk_lab::AsteriskLab;
use crate::pbx::media::Media;
use crate::support::{PATIENCE, wait_until};

/// The time between two checks of a phone's threads whether the test is over.
pub const TICK: Duration = Duration::from_millis(5);
/// The number of latest messages that a phone keeps for the output of a failed test.
const KEPT_MESSAGES: usize = 500;

static NEXT_TAG: AtomicU32 = AtomicU32::new(1);

/// A phone of one endpoint; its password is `pw` and the endpoint's name.
pub struct Phone(Arc<PhoneState>);

struct PhoneState {
    user: String,
    pbx: SocketAddr,
    socket: UdpSocket,
    tone_hz: f64,
    /// Whether an incoming call is answered at once.
    answers: bool,
    calls: Mutex<HashMap<String, Dialog>>,
    registered: Mutex<u16>,
    /// The latest messages, with the time in microseconds since 1970 and the direction.
    messages: Mutex<VecDeque<(u128, &'static str, String)>>,
    is_over: AtomicBool,
}

/// One call of a phone.
struct Dialog {
    local: String,
    remote: String,
    /// The URI to which a request inside the call is sent.
    target: String,
    sequence: u32,
    is_incoming: bool,
    /// The final status of the call; 0 before it.
    status: u16,
    /// The final status of the last REFER; 0 before it.
    refer_status: u16,
    is_ended: bool,
    /// The received INVITE, or the additional header lines of the sent INVITE. Empty after [`SipCall::hold`].
    invite: String,
    /// Method and header lines of the last request, which is sent again with a digest after a 401.
    last: (String, String),
    /// The Via of the last request.
    via: String,
    progress: Progress,
    media: Arc<Media>,
}

/// How far the last request of a call is.
#[derive(Clone, Copy, PartialEq)]
enum Progress {
    /// It has no final response. Asterisk repeats a final response that it sent before; such a response belongs to an
    /// earlier request or to a request that is over, and changes nothing.
    Open,
    /// As `Open`, and it was sent with a digest.
    OpenWithDigest,
    Over,
}

/// The handle with which a test controls one call of a phone.
pub struct SipCall {
    state: Arc<PhoneState>,
    id: String,
}

impl Phone {
    /// A phone that sends a tone of `tone_hz` and answers incoming calls at once.
    pub fn new(lab: &AsteriskLab, user: &str, tone_hz: u32) -> Self {
        Self::start(lab, user, tone_hz, true)
    }

    /// A phone that sends a tone of `tone_hz` and lets incoming calls ring.
    pub fn ringing(lab: &AsteriskLab, user: &str, tone_hz: u32) -> Self {
        Self::start(lab, user, tone_hz, false)
    }

    fn start(lab: &AsteriskLab, user: &str, tone_hz: u32, answers: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        // Asterisk's SIP port is the one before its AMI port.
        let pbx = SocketAddr::from(([127, 0, 0, 1], lab.ami().port() - 1));
        let state = Arc::new(PhoneState {
            user: user.to_owned(),
            pbx,
            socket,
            tone_hz: f64::from(tone_hz),
            answers,
            calls: Mutex::default(),
            registered: Mutex::default(),
            messages: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let receiving = Arc::clone(&state);
        std::thread::spawn(move || receiving.receive());
        Self(state)
    }

    /// Registers, so that calls of the endpoint ring here.
    pub fn register(self) -> Self {
        self.0.register(1, "");
        wait_until("the registration", || *self.0.registered.lock().unwrap() == 200);
        self
    }

    /// Dials and waits for the final answer.
    pub fn call(&self, number: &str) -> SipCall {
        self.call_with(number, "")
    }

    /// As [`Phone::call`], with additional header lines.
    pub fn call_with(&self, number: &str, headers: &str) -> SipCall {
        let call = self.begin(number, headers);
        wait_until("a final answer", || call.status() != 0);
        call
    }

    /// Dials, and does not wait for an answer.
    pub fn begin(&self, number: &str, headers: &str) -> SipCall {
        let state = &self.0;
        let uri = format!("sip:{number}@{}", state.pbx);
        let id = format!("call{}", tag());
        let mut dialog = Dialog {
            local: format!("<sip:{}@127.0.0.1>;tag={}", state.user, tag()),
            remote: format!("<{uri}>"),
            target: uri,
            sequence: 1,
            is_incoming: false,
            status: 0,
            refer_status: 0,
            is_ended: false,
            invite: headers.to_owned(),
            last: ("INVITE".to_owned(), String::new()),
            via: String::new(),
            progress: Progress::Open,
            media: Media::start(state.tone_hz),
        };
        let mut calls = state.calls.lock().unwrap();
        state.send_again(&id, &mut dialog, "");
        calls.insert(id.clone(), dialog);
        drop(calls);
        SipCall { state: Arc::clone(state), id }
    }

    /// Dials a feature code and returns the final SIP status. An answered call must end by itself.
    pub fn dial(&self, code: &str) -> u16 {
        let call = self.call(code);
        if call.status() == 200 {
            assert!(call.ends_within(PATIENCE).is_some(), "{code} does not end");
        }
        call.status()
    }

    /// The call that came in and has not ended.
    pub fn incoming(&self) -> SipCall {
        let find = || {
            let calls = self.0.calls.lock().unwrap();
            calls.iter().find(|(_, call)| call.is_incoming && !call.is_ended).map(|(id, _)| id.clone())
        };
        wait_until("an incoming call", || find().is_some());
        SipCall { state: Arc::clone(&self.0), id: find().unwrap() }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        let ids: Vec<String> = self.0.calls.lock().unwrap().keys().cloned().collect();
        for id in ids {
            SipCall { state: Arc::clone(&self.0), id }.hang_up();
        }
        self.0.is_over.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            self.0.print_messages();
        }
    }
}

impl SipCall {
    fn with<T>(&self, look: impl FnOnce(&mut Dialog) -> T) -> T {
        look(self.state.calls.lock().unwrap().get_mut(&self.id).unwrap())
    }

    /// The final status; 0 while there is none.
    pub fn status(&self) -> u16 {
        self.with(|call| call.status)
    }

    pub fn is_ended(&self) -> bool {
        self.with(|call| call.is_ended)
    }

    /// The time from now to the end of the call; `None` if the call is not over after `limit`.
    pub fn ends_within(&self, limit: Duration) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if self.is_ended() {
                return Some(began.elapsed());
            }
            std::thread::sleep(TICK);
        }
        None
    }

    /// The tones of `tones`, in Hz, that were received in the last 0.4 s.
    pub fn hears(&self, tones: &[u32]) -> Vec<u32> {
        let media = self.with(|call| Arc::clone(&call.media));
        media.hears(tones)
    }

    pub fn hang_up(&self) {
        if self.with(|call| call.status == 200 && !call.is_ended) {
            self.request("BYE", "");
            let began = Instant::now();
            while !self.is_ended() && began.elapsed() < Duration::from_secs(3) {
                std::thread::sleep(TICK);
            }
        }
        self.with(Dialog::end);
    }

    /// Hangs up before the call is answered. Returns the final status.
    pub fn cancel(&self) -> u16 {
        self.with(|call| {
            self.state.send(&format!(
                "CANCEL {} SIP/2.0\r\n{}From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} CANCEL\r\nMax-Forwards: 70\r\n\
                 Content-Length: 0\r\n\r\n",
                call.target, call.via, call.local, call.remote, self.id, call.sequence
            ));
        });
        wait_until("a final answer", || self.status() != 0);
        self.status()
    }

    /// Puts the call on hold, or takes it back. A phone sends no sound into a call on hold.
    pub fn hold(&self, is_held: bool) {
        self.with(|call| {
            call.media.hold(is_held);
            call.invite.clear();
            // The new INVITE has a final status of its own.
            call.status = 0;
        });
        self.request("INVITE", "");
        wait_until("an answer to the hold", || self.status() != 0);
        assert_eq!(self.status(), 200, "the PBX refuses the hold");
    }

    /// Attended transfer: connects the peer of this call with the peer of `other`. Returns the status of the REFER.
    pub fn transfer_to(&self, other: &Self) -> u16 {
        let (uri, replaces) = other.with(|call| {
            let uri = call.remote.split(['<', '>']).nth(1).unwrap().to_owned();
            (uri, other.replaces(call).replace(';', "%3B").replace('=', "%3D"))
        });
        self.refer(&format!("{uri}?Replaces={replaces}"))
    }

    /// Blind transfer: the peer of this call dials `number`. Returns the status of the REFER.
    pub fn transfer_to_number(&self, number: &str) -> u16 {
        self.refer(&format!("sip:{number}@{}", self.state.pbx))
    }

    fn refer(&self, to: &str) -> u16 {
        self.with(|call| call.refer_status = 0);
        self.request("REFER", &format!("Refer-To: <{to}>\r\n"));
        wait_until("an answer to REFER", || self.with(|call| call.refer_status) != 0);
        self.with(|call| call.refer_status)
    }

    /// The header lines with which the INVITE of another phone takes over this call.
    pub fn takeover(&self) -> String {
        format!("Require: replaces\r\nReplaces: {}\r\n", self.with(|call| self.replaces(call)))
    }

    fn replaces(&self, call: &Dialog) -> String {
        format!("{};to-tag={};from-tag={}", self.id, tag_of(&call.remote), tag_of(&call.local))
    }

    fn request(&self, method: &str, headers: &str) {
        let mut calls = self.state.calls.lock().unwrap();
        let call = calls.get_mut(&self.id).unwrap();
        call.sequence += 1;
        call.last = (method.to_owned(), headers.to_owned());
        call.progress = Progress::Open;
        self.state.send_again(&self.id, call, "");
    }
}

impl Dialog {
    fn end(&mut self) {
        self.is_ended = true;
        self.media.end();
    }
}

impl PhoneState {
    fn receive(self: Arc<Self>) {
        let mut bytes = vec![0; 65_536];
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok((length, _)) = self.socket.recv_from(&mut bytes) else { continue };
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.keep("received", &message);
            if message.starts_with("SIP/2.0 ") {
                self.handle_response(&message);
            } else {
                self.handle_request(&message);
            }
        }
    }

    fn send(&self, text: &str) {
        self.keep("sent", text);
        self.socket.send_to(text.as_bytes(), self.pbx).unwrap();
    }

    fn keep(&self, direction: &'static str, message: &str) {
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let mut messages = self.messages.lock().unwrap();
        messages.push_back((time, direction, message.to_owned()));
        let surplus = messages.len().saturating_sub(KEPT_MESSAGES);
        messages.drain(..surplus);
    }

    fn print_messages(&self) {
        for (time, direction, message) in &*self.messages.lock().unwrap() {
            let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
            eprintln!("{seconds}.{micros:06} {} {direction}:\n{}\n", self.user, message.trim_end());
        }
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:{}@{}>\r\n", self.user, self.socket.local_addr().unwrap())
    }

    fn via(&self) -> String {
        format!("Via: SIP/2.0/UDP {};branch=z9hG4bK{};rport\r\n", self.socket.local_addr().unwrap(), tag())
    }

    fn register(&self, sequence: u32, authorization: &str) {
        let (user, pbx) = (&self.user, self.pbx);
        self.send(&format!(
            "REGISTER sip:{pbx} SIP/2.0\r\n{}From: <sip:{user}@127.0.0.1>;tag=r\r\nTo: <sip:{user}@127.0.0.1>\r\n\
             Call-ID: register{user}\r\nCSeq: {sequence} REGISTER\r\n{}Expires: 300\r\nMax-Forwards: 70\r\n\
             {authorization}Content-Length: 0\r\n\r\n",
            self.via(),
            self.contact()
        ));
    }

    /// Sends the last request of a call.
    fn send_again(&self, id: &str, call: &mut Dialog, authorization: &str) {
        call.via = self.via();
        let (method, headers) = &call.last;
        let (headers, body) = match method.as_str() {
            "INVITE" => (format!("{}Content-Type: application/sdp\r\n", call.invite), call.media.description()),
            _ => (headers.clone(), String::new()),
        };
        self.send(&format!(
            "{method} {} SIP/2.0\r\n{}From: {}\r\nTo: {}\r\nCall-ID: {id}\r\nCSeq: {} {method}\r\n{}\
             Max-Forwards: 70\r\nSupported: replaces\r\n{headers}{authorization}Content-Length: {}\r\n\r\n{body}",
            call.target,
            call.via,
            call.local,
            call.remote,
            call.sequence,
            self.contact(),
            body.len()
        ));
    }

    /// Acknowledges a final response to an INVITE.
    fn acknowledge(&self, message: &str, target: &str) {
        // The ACK of a refusal belongs to the INVITE and has its Via; the ACK of a 200 is a request of its own.
        let via =
            if message.starts_with("SIP/2.0 2") { self.via() } else { format!("Via: {}\r\n", header(message, "Via")) };
        self.send(&format!(
            "ACK {target} SIP/2.0\r\n{via}From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} ACK\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            header(message, "From"),
            header(message, "To"),
            header(message, "Call-ID"),
            header(message, "CSeq").split(' ').next().unwrap()
        ));
    }

    fn digest(&self, message: &str, method: &str, uri: &str) -> String {
        let challenge = header(message, "WWW-Authenticate");
        let field = |name: &str| {
            let rest = challenge.split_once(&format!("{name}=\"")).unwrap().1;
            rest.split('"').next().unwrap().to_owned()
        };
        let (realm, nonce, opaque) = (field("realm"), field("nonce"), field("opaque"));
        let secret = md5(&format!("{0}:{realm}:pw{0}", self.user));
        let response = md5(&format!("{secret}:{nonce}:00000001:c:auth:{}", md5(&format!("{method}:{uri}"))));
        format!(
            "Authorization: Digest username=\"{}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"{uri}\",algorithm=MD5,\
             response=\"{response}\",opaque=\"{opaque}\",qop=auth,nc=00000001,cnonce=\"c\"\r\n",
            self.user
        )
    }

    /// Handles a response.
    fn handle_response(&self, message: &str) {
        let status: u16 = message[8..11].parse().unwrap();
        let sequence = header(message, "CSeq");
        let (number, method) = sequence.split_once(' ').unwrap();
        if status < 200 {
            return;
        }
        if method == "REGISTER" {
            if status == 401 && number == "1" {
                self.register(2, &self.digest(message, method, &format!("sip:{}", self.pbx)));
            } else {
                *self.registered.lock().unwrap() = status;
            }
            return;
        }
        let id = header(message, "Call-ID").to_owned();
        let mut calls = self.calls.lock().unwrap();
        let Some(call) = calls.get_mut(&id) else { return };
        let is_of_the_last_request = number == call.sequence.to_string() && method == call.last.0;
        let progress = if is_of_the_last_request { call.progress } else { Progress::Over };
        if method == "INVITE" {
            if progress != Progress::Over && status == 200 {
                header(message, "Contact").split(['<', '>']).nth(1).unwrap().clone_into(&mut call.target);
            }
            // A repeated response too: the PBX repeats it until it is acknowledged.
            self.acknowledge(message, &call.target);
        }
        match progress {
            Progress::Over => return,
            Progress::Open if status == 401 => {
                call.sequence += 1;
                call.progress = Progress::OpenWithDigest;
                let authorization = self.digest(message, method, &call.target);
                return self.send_again(&id, call, &authorization);
            }
            Progress::Open | Progress::OpenWithDigest => call.progress = Progress::Over,
        }
        match method {
            "INVITE" => {
                call.status = status;
                if status == 200 {
                    header(message, "To").clone_into(&mut call.remote);
                    call.media.set_peer(message);
                } else {
                    call.end();
                }
            }
            "REFER" => call.refer_status = status,
            "BYE" => call.end(),
            _ => {}
        }
    }

    /// Handles a request.
    fn handle_request(&self, message: &str) {
        let method = message.split(' ').next().unwrap();
        let id = header(message, "Call-ID").to_owned();
        let mut calls = self.calls.lock().unwrap();
        match method {
            "ACK" => {}
            "INVITE" if calls.contains_key(&id) => {
                let call = &calls[&id];
                let is_repeated = call.is_incoming && header(message, "CSeq") == header(&call.invite, "CSeq");
                if is_repeated && call.status == 0 {
                    return self.reply(message, "180 Ringing", call);
                }
                call.media.set_peer(message);
                self.reply(message, "200 OK", call);
            }
            "INVITE" => {
                let call = Dialog {
                    local: format!("{};tag={}", header(message, "To"), tag()),
                    remote: header(message, "From").to_owned(),
                    target: header(message, "Contact").split(['<', '>']).nth(1).unwrap().to_owned(),
                    sequence: 1,
                    is_incoming: true,
                    status: if self.answers { 200 } else { 0 },
                    refer_status: 0,
                    is_ended: false,
                    invite: message.to_owned(),
                    last: Default::default(),
                    via: String::new(),
                    progress: Progress::Over,
                    media: Media::start(self.tone_hz),
                };
                call.media.set_peer(message);
                self.reply(message, if self.answers { "200 OK" } else { "180 Ringing" }, &call);
                calls.insert(id, call);
            }
            _ => {
                let Some(call) = calls.get_mut(&id) else { return };
                self.reply(message, "200 OK", call);
                if method == "CANCEL" {
                    self.reply(&call.invite, "487 Request Terminated", call);
                }
                if method == "BYE" || method == "CANCEL" {
                    call.end();
                }
            }
        }
    }

    fn reply(&self, request: &str, status: &str, call: &Dialog) {
        let describes = request.starts_with("INVITE") && status == "200 OK";
        let body = if describes { call.media.description() } else { String::new() };
        let mut text = format!("SIP/2.0 {status}\r\n");
        for via in request.lines().filter(|line| line.starts_with("Via: ")) {
            writeln!(text, "{via}\r").unwrap();
        }
        let to = header(request, "To");
        let to = if to.contains(";tag=") { to } else { &call.local };
        write!(
            text,
            "From: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n{}Content-Type: application/sdp\r\n\
             Content-Length: {}\r\n\r\n{body}",
            header(request, "From"),
            header(request, "Call-ID"),
            header(request, "CSeq"),
            self.contact(),
            body.len()
        )
        .unwrap();
        self.send(&text);
    }
}

/// A word that is unique in this process, for a call id, a tag or a branch.
fn tag() -> String {
    format!("q{}x{}", std::process::id(), unique_number())
}

/// A number that is unique in this process.
pub fn unique_number() -> u32 {
    NEXT_TAG.fetch_add(1, Ordering::Relaxed)
}

fn tag_of(party: &str) -> &str {
    party.split(";tag=").nth(1).unwrap_or_default()
}

/// The first header of this name; empty if there is none.
fn header<'m>(message: &'m str, name: &str) -> &'m str {
    let head = message.split("\r\n\r\n").next().unwrap();
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the users of these phones and two queues: `support-line`, which has the number 604 at the sidecar, and 605,
/// which has a member in `queues.conf`.
pub fn add_staff(lab: &AsteriskLab) {
    let file = "organizations/acme.toml";
    let user = |id: &str, extension: &str, queues: &str| {
        format!("[[users]]\nid = \"{id}\"\nextension = \"{extension}\"\nroles = [\"agent\"]\nqueues = [{queues}]\n")
    };
    let staff = [
        user("erin", "1005", "\"support\", \"line\""),
        user("fred", "1003", "\"fixed\""),
        user("gina", "1006", "\"support\""),
        "[[users]]\nid = \"olga\"\nextension = \"2002\"\n".to_owned(),
        "[[queues]]\nid = \"line\"\nnumber = \"604\"\n[[queues]]\nid = \"fixed\"\nnumber = \"605\"\n".to_owned(),
    ];
    lab.folder.write(file, &(lab.folder.read(file) + &staff.concat()));
    lab.folder.replace(file, "supervises = [\"support\"]", "supervises = [\"support\", \"line\"]");
    assert_eq!(lab.sidecar().reload()["successful"], true);
}
