//! Given two thousand peers that send random bytes, when they have disconnected, then every line got an answer, every
//! FastAGI connection got a verdict, and the sidecar works as before.

use std::io::Write;
use std::net::TcpStream;

use crate::stories::fixtures::ORGANIZATION;
use crate::support::{Folder, Sidecar, agi_environment, close_our_side, connect, read_to_end, wait_until};

const LINE_BYTES_MAX: usize = 1_024;

/// A pseudo-random generator with a seed: the bytes are the same in every run.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

/// Random bytes, or words of the grammar in random order, or a valid message with random changes.
fn garbage(random: &mut Random, words: &[&[u8]], good: &[u8]) -> Vec<u8> {
    match random.below(4) {
        0 => {
            let length = random.below(3_000);
            (0..length).map(|_| random.byte()).collect()
        }
        1 => {
            let count = random.below(200);
            (0..count).flat_map(|_| random.pick(words).to_vec()).collect()
        }
        2 => {
            let mut bytes = good.repeat(1 + random.below(3));
            for _ in 0..=random.below(6) {
                let (place, byte) = (random.below(bytes.len()), random.byte());
                bytes[place] = byte;
            }
            bytes
        }
        _ => {
            let mut bytes = good.to_vec();
            let (from, count) = (random.below(bytes.len()), random.below(40));
            let piece: Vec<u8> = (0..count).flat_map(|_| random.pick(words).to_vec()).collect();
            let to = bytes.len().min(from + random.below(20));
            bytes.splice(from..to, piece);
            bytes
        }
    }
}

/// Sends the bytes in a few pieces and closes the sending side.
fn send(random: &mut Random, stream: &mut TcpStream, bytes: &[u8]) {
    let piece = 1 + random.below(bytes.len().max(1));
    for piece in bytes.chunks(piece) {
        // The sidecar may have closed the connection after an error; the rest is not needed then.
        if stream.write_all(piece).is_err() {
            return;
        }
    }
    close_our_side(stream);
}

/// The number of replies that the line dialect must send to these bytes: one a line, up to the first too long line.
fn expected_replies(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    loop {
        match bytes.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') {
            Some(end) => bytes = &bytes[end + 1..],
            None => return count + usize::from(bytes.len() >= LINE_BYTES_MAX),
        }
        count += 1;
    }
}

fn is_reply(line: &str) -> bool {
    let mut words = line.split(' ');
    let id = words.next().unwrap_or_default();
    let has_id = id == "-" || (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_value = |value: &str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let verdict = words.next().unwrap_or_default();
    has_id
        && ["allow", "deny", "error", "pong"].contains(&verdict)
        && words.all(|pair| pair.split_once('=').is_some_and(|(key, value)| is_value(key) && is_value(value)))
}

fn assert_unharmed(sidecar: &Sidecar) {
    wait_until("the connections to end", || {
        let status = sidecar.status();
        status["connections"]["line"] == 0 && status["connections"]["fastagi"] == 0
    });
    assert_eq!(format!("{}", sidecar.metric("queuewarden_panics_total")), "0");
    assert_eq!(
        sidecar.ask("may org=acme actor=1001 action=queue.login queue=600"),
        "allow action=queue.login queue=600 reason=assigned policy=1"
    );
    assert_eq!(sidecar.try_get("/readyz").0, 200);
}

#[test]
fn every_line_of_garbage_gets_one_reply() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let words: &[&[u8]] = &[
        b" ",
        b"\n",
        b"\r\n",
        b"=",
        b"1",
        b"q",
        b"-",
        b"dial",
        b"do",
        b"may",
        b"ping",
        b"auth",
        b"watch",
        b" org=acme",
        b" actor=1001",
        b" digits=*13",
        b" action=queue.login",
        b" action=call.listen",
        b" queue=600",
        b" target=1002",
        b" call=",
        b" for=1",
        b" via=phone",
        b" token=x",
        b"\0",
        b"\xff\xfe",
        b"1 ping\n",
    ];
    let good = b"1 may org=acme actor=1001 action=queue.login queue=600\n2 ping\n3 may org=acme actor=2001 action=call.listen target=1001 queue=600\n";
    for seed in 1..=1_000 {
        let mut random = Random::seeded(seed);
        // After a first line that is no request, nothing is read (DOOR E2).
        let bytes = [b"0 ping\n", &garbage(&mut random, words, good)[..]].concat();
        let mut stream = connect(sidecar.address("line"));
        send(&mut random, &mut stream, &bytes);
        let replies = read_to_end(&mut stream);
        assert_eq!(
            replies.lines().count(),
            expected_replies(&bytes),
            "seed {seed}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        assert!(replies.lines().all(is_reply), "seed {seed}: {replies:?}");
    }
    // Random bytes may be a valid login, so the sessions are not compared.
    assert_unharmed(&sidecar);
}

#[test]
fn every_fastagi_connection_with_garbage_gets_a_verdict() {
    let sidecar = Sidecar::start(&Folder::with("acme.toml", ORGANIZATION));
    let words: &[&[u8]] = &[
        b"\n",
        b"\n\n",
        b": ",
        b":",
        b"agi_network: yes\n",
        b"agi_network_script: acme/dial\n",
        b"agi_accountcode: 1001\n",
        b"agi_arg_1: digits=*13600\n",
        b"agi_arg_2: ",
        b"queue=600",
        b"agi_extension: s\n",
        b"agi_dnid: *14\n",
        b"HANGUP\n",
        b"200 result=1\n",
        b"510 Invalid or unknown command\n",
        b"520-Invalid\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\"",
        b"acme/",
    ];
    let good = agi_environment("1001", "acme/call.listen", &["target=1002", "queue=600"]);
    for seed in 1..=1_000 {
        let mut random = Random::seeded(seed);
        let bytes = garbage(&mut random, words, good.as_bytes());
        let mut stream = connect(sidecar.address("fastagi"));
        send(&mut random, &mut stream, &bytes);
        let replies = read_to_end(&mut stream);
        let last = replies.lines().last().unwrap_or_default();
        let verdicts = ["SET VARIABLE QW_VERDICT \"ALLOW\"", "SET VARIABLE QW_VERDICT \"DENY\""];
        assert!(
            verdicts.contains(&last) && replies.lines().count() == 6
                || last.starts_with("failure") && replies.lines().count() == 1,
            "seed {seed}: {replies:?} to {:?}",
            String::from_utf8_lossy(&bytes)
        );
        assert!(replies.ends_with('\n'), "the last command has a line end");
    }
    assert_unharmed(&sidecar);
}
