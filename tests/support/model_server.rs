//! What the models of Asterisk and FreeSWITCH share: a listener, the state behind it, and the connections for events.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::support::misbehavior::Misbehavior;

/// What a model knows and does.
pub trait ModelState: Send + Sized + 'static {
    /// Serves one connection until it breaks.
    fn serve(stream: TcpStream, state: &Mutex<Self>) -> io::Result<()>;
    fn misbehavior(&mut self) -> &mut Misbehavior;
    /// The connections that are logged in.
    fn streams(&mut self) -> &mut Vec<TcpStream>;
}

/// The listener of a model and what the model knows.
pub struct ModelServer<S> {
    pub address: SocketAddr,
    state: Arc<Mutex<S>>,
}

impl<S> Clone for ModelServer<S> {
    fn clone(&self) -> Self {
        Self { address: self.address, state: Arc::clone(&self.state) }
    }
}

impl<S: ModelState> ModelServer<S> {
    /// Listens on a free port of loopback, and serves each connection in a thread of its own.
    pub fn listen(state: S) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let state = Arc::clone(&this.state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                thread::spawn(move || drop(S::serve(stream, &state)));
            }
        });
        this
    }

    pub fn state(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap()
    }

    pub fn misbehave(&self, change: impl FnOnce(&mut Misbehavior)) {
        change(self.state().misbehavior());
    }

    /// Sends these bytes on every connection.
    pub fn say(&self, bytes: &[u8]) {
        self.state().streams().retain_mut(|stream| stream.write_all(bytes).is_ok());
    }

    /// Closes every connection.
    pub fn hang_up(&self) {
        for stream in self.state().streams().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Reads what ends with `end`, and returns it without `end`. `None`: the peer closed the connection.
pub fn read_until(stream: &mut impl io::Read, received: &mut Vec<u8>, end: &[u8]) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = received.windows(end.len()).position(|bytes| bytes == end) {
            let bytes: Vec<u8> = received.drain(..at + end.len()).collect();
            return Ok(Some(String::from_utf8_lossy(&bytes[..at]).into_owned()));
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            length => received.extend_from_slice(&chunk[..length]),
        }
    }
}
