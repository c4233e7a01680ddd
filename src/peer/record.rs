//! What one peer has asked and where it erred last, for an operator who looks for the PBX that does not ask, or that
//! asks wrongly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::decision::{ErrorReason, WireError};
use crate::dialect::readable::ReadableRequest;
use crate::event::Key;
use crate::telephony::UnixMillis;

/// The last error of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFault {
    /// When the peer erred.
    pub at: UnixMillis,
    /// The reason of the error: a code of `ErrorReason`.
    pub reason: &'static str,
    /// The key that is wrong, or the first name that is no key. `None`: no key is at fault.
    pub key: Option<Box<str>>,
    /// The actor of the request. `None`: it could not be read, or the errors of the peer were too many to read each.
    pub actor: Option<Box<str>>,
    /// The PBX's channel of the request. `None`: the same, or the dialect has none.
    pub channel: Option<Box<str>>,
}

impl PeerFault {
    /// An error of which no request is read.
    #[must_use]
    pub fn of(error: WireError, at: UnixMillis) -> Self {
        let key = error.key.map(|key| key.name().into());
        Self { at, reason: error.reason.code(), key, actor: None, channel: None }
    }

    /// The same error, with what can be read of its request.
    #[must_use]
    pub fn with_request(self, request: &ReadableRequest) -> Self {
        Self {
            key: self.key.or_else(|| request.unknown_key.clone()),
            actor: request.value(Key::Actor).map(Into::into),
            channel: request.channel.clone(),
            ..self
        }
    }
}

/// The questions and the last error of one connection, or of the connections of one peer.
#[derive(Debug, Default)]
pub struct PeerRecord {
    questions: AtomicU64,
    fault: Mutex<Option<PeerFault>>,
}

impl PeerRecord {
    /// Counts questions that could be read.
    pub fn asked(&self, questions: usize) {
        self.questions.fetch_add(questions as u64, Ordering::Relaxed);
    }

    /// Keeps an error instead of the one before. A peer that does not read the answer to a wrong question still asked
    /// wrongly: that is the error to look for.
    pub fn erred(&self, fault: PeerFault) {
        let mut last = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none() || fault.reason != ErrorReason::VerdictUnread.code() {
            *last = Some(fault);
        }
    }

    /// How many questions could be read.
    #[must_use]
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }

    /// The last error. `None`: there was none.
    #[must_use]
    pub fn fault(&self) -> Option<PeerFault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
