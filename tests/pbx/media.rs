//! The sound of a call: a phone sends a tone, and measures which tones it receives.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "samples have 14 bits, and a test sends a few thousand packets"
)]

use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::pbx::phone::{TICK, unique_number};

/// Samples a second, and in one packet of 20 ms.
const RATE: usize = 8_000;
const PACKET: usize = 160;
/// The number of latest samples in which tones are measured: 0.4 s.
const WINDOW: usize = 3_200;
/// The amplitude of a sent tone.
const SENT_AMPLITUDE: f64 = 6_000.0;
/// The lowest amplitude at which a received tone counts as heard.
const HEARD_AMPLITUDE_MIN: f64 = 300.0;

/// The sound of one call.
pub struct Media {
    socket: UdpSocket,
    peer: Mutex<Option<SocketAddr>>,
    heard: Mutex<VecDeque<i32>>,
    is_held: AtomicBool,
    is_over: AtomicBool,
}

impl Media {
    pub fn start(tone_hz: f64) -> Arc<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        let media = Arc::new(Self {
            socket,
            peer: Mutex::default(),
            heard: Mutex::default(),
            is_held: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let running = Arc::clone(&media);
        std::thread::spawn(move || running.run(tone_hz));
        media
    }

    pub fn description(&self) -> String {
        let port = self.socket.local_addr().unwrap().port();
        let version = unique_number();
        let direction = if self.is_held.load(Ordering::Relaxed) { "sendonly" } else { "sendrecv" };
        format!(
            "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={direction}\r\n"
        )
    }

    /// Sends the tone to the port of the peer's session description from now on.
    pub fn set_peer(&self, message: &str) {
        if let Some(port) = message.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()) {
            *self.peer.lock().unwrap() = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }

    /// The tones of `tones`, in Hz, that were received in the last 0.4 s.
    pub fn hears(&self, tones: &[u32]) -> Vec<u32> {
        let samples: Vec<i32> = self.heard.lock().unwrap().iter().copied().collect();
        tones.iter().copied().filter(|&tone| amplitude(&samples, f64::from(tone)) > HEARD_AMPLITUDE_MIN).collect()
    }

    /// A phone sends no sound into a call on hold.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn run(&self, tone_hz: f64) {
        let (mut sent, began) = (0_u32, Instant::now());
        let mut bytes = [0; 2_048];
        while !self.is_over.load(Ordering::Relaxed) {
            if began.elapsed() >= Duration::from_millis(20) * sent {
                let peer = self.peer.lock().unwrap().filter(|_| !self.is_held.load(Ordering::Relaxed));
                if let Some(peer) = peer {
                    let mut packet = vec![0x80, 0];
                    packet.extend((sent as u16).to_be_bytes());
                    packet.extend((sent * PACKET as u32).to_be_bytes());
                    packet.extend(7_u32.to_be_bytes());
                    packet.extend((0..PACKET).map(|at| {
                        let time = (sent as usize * PACKET + at) as f64 / RATE as f64;
                        encode((SENT_AMPLITUDE * (TAU * tone_hz * time).sin()) as i32)
                    }));
                    let _ = self.socket.send_to(&packet, peer);
                }
                sent += 1;
            }
            if let Ok((length @ 13.., _)) = self.socket.recv_from(&mut bytes)
                && bytes[1] % 0x80 == 0
            {
                let mut heard = self.heard.lock().unwrap();
                heard.extend(bytes[12..length].iter().map(|&byte| decode(byte)));
                let surplus = heard.len().saturating_sub(WINDOW);
                heard.drain(..surplus);
            }
        }
    }
}

/// The amplitude of a tone (Goertzel).
fn amplitude(samples: &[i32], tone_hz: f64) -> f64 {
    let factor = 2.0 * (TAU * tone_hz / RATE as f64).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for &sample in samples {
        (one, two) = (f64::from(sample) + factor * one - two, one);
    }
    let power = one * one + two * two - factor * one * two;
    power.max(0.0).sqrt() * 2.0 / samples.len().max(1) as f64
}

/// A sample as µ-law.
fn encode(sample: i32) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let biased = sample.abs().min(32_635) + 0x84;
    let exponent = (biased >> 7).ilog2() as i32;
    !(sign | (exponent << 4) as u8 | ((biased >> (exponent + 3)) & 0x0f) as u8)
}

/// The sample of a µ-law byte.
fn decode(byte: u8) -> i32 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte & 0x70) >> 4);
    if byte & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }
}
