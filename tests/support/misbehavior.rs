//! How the scripted PBXs break and lie, whatever their protocol.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// What a PBX says about its members that is not so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    #[default]
    Nothing,
    /// A list that never ends, and of which nothing more comes.
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
    /// It closes the connection after as many actions.
    pub closes_after: Option<usize>,
    /// It sends its bytes one at a time.
    pub splits: bool,
    /// Text that it sends before every answer.
    pub noise: String,
    /// It waits as long before every answer.
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
