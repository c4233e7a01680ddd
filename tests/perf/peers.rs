//! The servers that the sidecar is compared with: the least that a tokio server can do for the same bytes.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::million_users;
use super::questions::{self, REPLY};

/// A server of this process, started again as a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Answers every line with the same bytes, as many as the sidecar's answer has.
    Echo,
    /// Reads the line, looks the user up in a hash map, and answers whether the user serves the queue.
    Floor,
    /// Reads an environment of FastAGI to its end and answers with the same bytes.
    FastAgi,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Echo, Self::Floor, Self::FastAgi];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Floor => "floor",
            Self::FastAgi => "tokio-fastagi",
        }
    }
}

/// Listens on a free port, prints its address, and serves until it is killed.
pub fn serve(peer: Peer, workers: usize) {
    let table = Arc::new(if peer == Peer::Floor { table() } else { HashMap::new() });
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(workers).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        println!("listening {address}");
        std::io::stdout().flush().unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let table = Arc::clone(&table);
            tokio::spawn(async move {
                match peer {
                    Peer::Echo => lines(stream, |_, output| output.extend_from_slice(REPLY)).await,
                    Peer::Floor => lines(stream, |line, output| decide(&table, line, output)).await,
                    Peer::FastAgi => environment(stream).await,
                }
            });
        }
    });
}

/// The queues of each user, by extension.
fn table() -> HashMap<String, Vec<u16>> {
    (0..million_users::USERS)
        .map(|user| (million_users::extension(user), million_users::served(user).collect()))
        .collect()
}

async fn lines(mut stream: TcpStream, mut answer: impl FnMut(&[u8], &mut Vec<u8>)) {
    let (mut input, mut output) = (Vec::with_capacity(16_384), Vec::with_capacity(16_384));
    while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
        let mut consumed = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[consumed..]) {
            answer(&input[consumed..consumed + end], &mut output);
            consumed += end + 1;
        }
        input.drain(..consumed);
        if stream.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
    }
}

fn decide(table: &HashMap<String, Vec<u16>>, line: &[u8], output: &mut Vec<u8>) {
    let line = std::str::from_utf8(line).unwrap();
    let (mut id, mut actor, mut queue) = ("", "", "");
    for (position, word) in line.split(' ').enumerate() {
        match word.split_once('=') {
            Some(("actor", value)) => actor = value,
            Some(("queue", value)) => queue = value,
            _ if position == 0 => id = word,
            _ => {}
        }
    }
    let number: u16 = queue.parse().unwrap();
    let (verdict, reason) = match table.get(actor) {
        Some(served) if served.contains(&number) => ("allow", "assigned"),
        _ => ("deny", "unassigned_barred"),
    };
    writeln!(output, "{id} {verdict} action=queue.login queue={queue} reason={reason} policy=1").unwrap();
}

async fn environment(mut stream: TcpStream) {
    let mut input = Vec::with_capacity(4_096);
    while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
        if input.ends_with(b"\n\n") {
            let _gone = stream.write_all(questions::AGI_REPLY).await;
            let _gone = stream.shutdown().await;
            // As the sidecar does: reads until the peer closes.
            while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {}
            return;
        }
    }
}
