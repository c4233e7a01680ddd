//! A SIP server that plays the PBX, and phones that authenticate.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::support::PATIENCE;

pub(super) const REALM: &str = "lab.example";

pub(super) fn password(user: &str) -> String {
    format!("pw{user}")
}

/// A SIP server that answers 200 to every request unless told otherwise, and keeps the requests.
pub struct SipServer {
    pub address: SocketAddr,
    socket: UdpSocket,
    requests: Arc<Mutex<Vec<String>>>,
    /// The answer to INVITE; empty: none.
    invite_answer: Arc<Mutex<&'static str>>,
    /// The answer to REFER.
    refer_answer: Arc<Mutex<&'static str>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SipServer {
    pub(super) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let (requests, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let invite_answer = Arc::new(Mutex::new("200 OK"));
        let refer_answer = Arc::new(Mutex::new("202 Accepted"));
        let (own_socket, thread_answer) = (socket.try_clone().unwrap(), Arc::clone(&invite_answer));
        let thread_refer_answer = Arc::clone(&refer_answer);
        let (thread_requests, thread_stop) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !thread_stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let status = match request.split(' ').next() {
                    Some("INVITE") => *thread_answer.lock().unwrap(),
                    Some("REFER") => *thread_refer_answer.lock().unwrap(),
                    _ => "200 OK",
                };
                let is_request = !request.starts_with("ACK") && !request.starts_with("SIP/2.0");
                let answer =
                    (is_request && !status.is_empty()).then(|| reply(&request, status, &format!("sip:pbx@{address}")));
                let mut requests = thread_requests.lock().unwrap();
                let canceled =
                    requests.iter().rfind(|kept| request.starts_with("CANCEL") && kept.starts_with("INVITE"));
                let canceled = canceled.map(|invite| reply(invite, "487 Request Terminated", "sip:pbx@pbx"));
                requests.push(request);
                drop(requests);
                if let Some(canceled) = canceled {
                    socket.send_to(canceled.as_bytes(), from).unwrap();
                }
                if let Some(answer) = answer {
                    socket.send_to(answer.as_bytes(), from).unwrap();
                }
            }
        });
        Self { address, socket: own_socket, requests, invite_answer, refer_answer, stop, thread: Some(thread) }
    }

    /// What the next calls are answered with; empty: not at all.
    pub fn answer_invite(&self, status: &'static str) {
        *self.invite_answer.lock().unwrap() = status;
    }

    /// What the next REFERs are answered with.
    pub fn answer_refer(&self, status: &'static str) {
        *self.refer_answer.lock().unwrap() = status;
    }

    /// Calls the phone that registered last, on the Path that it registered with, and lets it answer.
    pub fn call(&self, phone: &Phone, call_id: &str, headers: &[&str]) {
        let registered = self.requests("REGISTER").pop().expect("a registration");
        let field = |name: &str| {
            let value = registered.lines().find_map(|line| line.strip_prefix(name)).expect(&registered);
            value.trim().to_owned()
        };
        let (path, contact, here) = (field("Path:"), field("Contact:"), self.address);
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let uri = contact.trim_matches(['<', '>']);
        let invite = format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{call_id}\r\nRoute: {path}\r\n\
             From: <sip:caller@pbx>;tag=pbx\r\nTo: <{uri}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:pbx@{here}>\r\nMax-Forwards: 70\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        self.socket.send_to(invite.as_bytes(), phone.server).unwrap();
        phone.answer(call_id);
    }

    /// Tells the phone how its REFER went: a NOTIFY with the first line of an answer, in the dialog of the REFER.
    pub fn notify(&self, phone: &Phone, line: &str) {
        let refer = self.requests("REFER").pop().expect("a REFER");
        let field = |name: &str| {
            let value = refer.lines().find_map(|line| line.strip_prefix(name)).expect(&refer);
            value.trim().to_owned()
        };
        let (contact, here) = (field("Contact:"), self.address);
        let uri = contact.trim_matches(['<', '>']);
        let notify = format!(
            "NOTIFY {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKnotify\r\nRoute: {}\r\n\
             From: {};tag=pbx\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 NOTIFY\r\nContact: <sip:pbx@{here}>\r\n\
             Max-Forwards: 70\r\nEvent: refer\r\nSubscription-State: terminated\r\n\
             Content-Type: message/sipfrag\r\nContent-Length: {}\r\n\r\n{line}",
            field("Record-Route:"),
            field("To:"),
            field("From:"),
            field("Call-ID:"),
            line.len()
        );
        self.socket.send_to(notify.as_bytes(), phone.server).unwrap();
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

/// A SIP reply to the request, from this contact.
fn reply(request: &str, status: &str, contact: &str) -> String {
    let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
    let kept = request.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    let to = request.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = if to.contains("tag=") { "" } else { ";tag=pbx" };
    format!("SIP/2.0 {status}\r\n{kept}{to}{tag}\r\nContact: <{contact}>\r\nContent-Length: 0\r\n\r\n")
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
    pub to_tag: Option<String>,
    /// The tag of `From`; `None`: a new one for each request.
    from_tag: Option<String>,
    /// The request URI; `None`: the number at Kamailio.
    uri: Option<String>,
}

/// A call of a phone, for requests within it.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: String,
    pub to_tag: String,
    pub from_tag: String,
    route: String,
    /// The contact of the other side.
    remote: String,
}

impl Phone {
    pub(super) fn new(user: &'static str, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let password = password(user);
        let calls = AtomicU32::new(1);
        Self { user, password, socket, server, calls, call_id: None, to_tag: None, from_tag: None, uri: None }
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
        status(&self.ask_for_answer(method, number, headers))
    }

    /// As [`Phone::ask`]; returns the whole final answer.
    pub fn ask_for_answer(&self, method: &str, number: &str, headers: &[&str]) -> String {
        let challenge = self.ask_once(method, number, headers, None).expect("an answer");
        if !challenge.starts_with("SIP/2.0 407") && !challenge.starts_with("SIP/2.0 401") {
            return challenge;
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
        self.ask_once(method, number, headers, Some(&credentials)).expect("an answer")
    }

    /// An INVITE, to be sent with [`Phone::send`].
    pub fn invite(&self, number: &str, credentials: &str) -> String {
        self.request("INVITE", number, &[], Some(credentials))
    }

    /// Sends an INVITE as it is, and returns the final status.
    pub fn send(&self, invite: &str) -> u16 {
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.socket.send_to(invite.as_bytes(), self.server).unwrap();
        let answer = self.final_answer(invite).expect("an answer");
        self.socket.send_to(acknowledgement(invite, &answer).as_bytes(), self.server).unwrap();
        status(&answer)
    }

    /// Calls a number that answers.
    pub fn call(&self, number: &str) -> Call {
        let answer = self.ask_for_answer("INVITE", number, &[]);
        assert_eq!(status(&answer), 200, "{answer}");
        let field = |name: &str| {
            let value = answer.lines().find_map(|line| line.strip_prefix(name)).expect(&answer);
            value.trim().to_owned()
        };
        let tag = |name: &str| field(name).split_once(";tag=").expect(&answer).1.to_owned();
        Call {
            id: field("Call-ID:"),
            to_tag: tag("To:"),
            from_tag: tag("From:"),
            route: field("Record-Route:"),
            remote: field("Contact:").trim_matches(['<', '>']).to_owned(),
        }
    }

    /// Sends the request within the call, and returns the final status.
    pub fn within(&mut self, call: &Call, method: &str, headers: &[&str]) -> u16 {
        let route = format!("Route: {}", call.route);
        let headers: Vec<&str> = headers.iter().copied().chain([&*route]).collect();
        let Call { id, to_tag, from_tag, remote, .. } = call.clone();
        (self.call_id, self.to_tag, self.from_tag, self.uri) = (Some(id), Some(to_tag), Some(from_tag), Some(remote));
        let status = self.ask(method, "x", &headers);
        (self.call_id, self.to_tag, self.from_tag, self.uri) = (None, None, None, None);
        status
    }

    /// Waits for the call with this id, and answers it.
    fn answer(&self, call_id: &str) {
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = vec![0; 65_536];
        loop {
            let length = self.socket.recv(&mut buffer).expect("a call");
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if request.starts_with("INVITE ") && request.contains(call_id) {
                assert!(!request.contains("X-Queuewarden"), "the header is for Kamailio only: {request}");
                let contact = format!("sip:{}@{}", self.user, self.socket.local_addr().unwrap());
                self.socket.send_to(reply(&request, "200 OK", &contact).as_bytes(), self.server).unwrap();
                return;
            }
        }
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

    /// Sends the request, a CANCEL after the provisional answer 100, and calls `canceled` at the first answer to
    /// either. Returns the final status of the request.
    pub fn ask_and_cancel(&self, number: &str, credentials: &str, canceled: impl FnOnce()) -> u16 {
        self.ask_and_cancel_after(number, credentials, || (), canceled)
    }

    /// As [`Phone::ask_and_cancel`], and calls `asked` before the CANCEL is sent.
    pub fn ask_and_cancel_after(
        &self,
        number: &str,
        credentials: &str,
        asked: impl FnOnce(),
        canceled: impl FnOnce(),
    ) -> u16 {
        let request = self.request("INVITE", number, &[], Some(credentials));
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.socket.send_to(request.as_bytes(), self.server).unwrap();
        let answer = self.answer_to(&request).expect("an answer");
        assert!(answer.starts_with("SIP/2.0 100"), "{answer}");
        asked();
        let kept = ["Via:", "From:", "To:", "Call-ID:", "Max-Forwards:"];
        let kept = request.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
        let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
        let start = request.lines().next().unwrap().replace("INVITE", "CANCEL");
        let invite = request.lines().find(|line| line.starts_with("CSeq:")).unwrap();
        let cseq = invite.replace("INVITE", "CANCEL");
        let cancel = format!("{start}\r\n{kept}{cseq}\r\nContent-Length: 0\r\n\r\n");
        // Twice, as a phone that has not seen the answer.
        for _ in 0..2 {
            self.socket.send_to(cancel.as_bytes(), self.server).unwrap();
        }
        let mut canceled = Some(canceled);
        loop {
            let answer = self.final_answer(&request).expect("an answer");
            if let Some(canceled) = canceled.take() {
                canceled();
            }
            if answer.contains(invite) {
                self.socket.send_to(acknowledgement(&request, &answer).as_bytes(), self.server).unwrap();
                return status(&answer);
            }
            assert!(answer.starts_with("SIP/2.0 200") && answer.contains(&cseq), "{answer}");
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
        if let Some(uri) = &self.uri {
            return uri.clone();
        }
        if number.is_empty() { format!("sip:{}", self.server) } else { format!("sip:{number}@{}", self.server) }
    }

    fn request(&self, method: &str, number: &str, headers: &[&str], credentials: Option<&str>) -> String {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let here = self.socket.local_addr().unwrap();
        let (uri, user) = (self.uri(number), self.user);
        let call_id = self.call_id.clone().unwrap_or_else(|| format!("{call}-{}@phone", here.port()));
        let to_tag = self.to_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let from_tag = self.from_tag.clone().unwrap_or_else(|| format!("f{call}"));
        let more: String = headers.iter().copied().chain(credentials).map(|header| format!("{header}\r\n")).collect();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{}x{call};rport\r\n\
             From: <sip:{user}@{REALM}>;tag={from_tag}\r\nTo: <{uri}>{to_tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: {call} {method}\r\nContact: <sip:{user}@{here}>\r\nMax-Forwards: 70\r\n{more}Content-Length: 0\r\n\r\n",
            here.port()
        )
    }

    /// The final answer to the request, or to its CANCEL.
    fn final_answer(&self, request: &str) -> Option<String> {
        loop {
            let answer = self.answer_to(request)?;
            if !answer.starts_with("SIP/2.0 1") {
                return Some(answer);
            }
        }
    }

    /// The next answer to the request, or to its CANCEL. An answer to an earlier request may be repeated late.
    fn answer_to(&self, request: &str) -> Option<String> {
        let line = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        let number = |text: &str| line(text, "CSeq:")?.split_whitespace().nth(1).map(str::to_owned);
        let mut buffer = vec![0; 65_536];
        loop {
            let length = self.socket.recv(&mut buffer).ok()?;
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let is_of_call = line(&answer, "Call-ID:") == line(request, "Call-ID:");
            if answer.starts_with("SIP/2.0 ") && is_of_call && number(&answer) == number(request) {
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
    let cseq = request.lines().find(|line| line.starts_with("CSeq:")).unwrap().replace("INVITE", "ACK");
    format!("{start}\r\n{kept}{to}\r\n{cseq}\r\nContent-Length: 0\r\n\r\n")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(answer)
}

fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
