//! How the models of PBXs break and lie, whatever their protocol.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// A false list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    #[default]
    Nothing,
    /// A list that stops before its end.
    ListWithoutEnd,
    /// A list whose elements never end.
    EndlessList,
    /// The list of another queue.
    AnotherQueue,
    /// A list without some of its elements.
    LacksElements,
    /// Every answer twice.
    Repeats,
    /// The parts of an answer in another order.
    Reorders,
    /// A name of a megabyte.
    HugeName,
    /// A member twice, once paused and once not.
    MemberTwice,
}

/// How a PBX misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Misbehavior {
    /// The actions or commands that it refuses.
    pub denied: Vec<String>,
    /// It closes the connection after this number of actions. `None`: it does not close it.
    pub closes_after: Option<usize>,
    /// It sends its bytes one at a time.
    pub splits: bool,
    /// Text that it sends before every answer.
    pub noise: String,
    /// It waits this time before every answer.
    pub delay: Duration,
    /// It refuses every login.
    pub refuses_login: bool,
    pub lie: Lie,
}

impl Misbehavior {
    /// Sends an answer: whole, or byte by byte.
    pub fn send(&self, stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
        if !self.splits {
            return stream.write_all(answer);
        }
        answer.iter().try_for_each(|byte| stream.write_all(&[*byte]))
    }
}
