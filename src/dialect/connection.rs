//! How a connection ends: the part of [`super::Dialect`] that is the same in several dialects.

use crate::decision::ErrorReason;
use crate::dialect::Patience;

/// The end of a connection that carries any number of questions: line, JSON-RPC and evapi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PersistentConnection {
    /// Our side has ended; input is read only to discard it.
    finished: bool,
}

impl PersistentConnection {
    pub(super) const fn new() -> Self {
        Self { finished: false }
    }

    pub(super) const fn is_finished(self) -> bool {
        self.finished
    }

    pub(super) const fn finish(&mut self) {
        self.finished = true;
    }

    /// [`super::Dialect::patience`] of these dialects.
    pub(super) const fn patience(self, has_unread: bool) -> Patience {
        match (self.finished, has_unread) {
            (true, _) => Patience::Closing,
            (false, true) => Patience::Frame,
            (false, false) => Patience::Endless,
        }
    }

    /// Finishes the connection and returns the fault to count. `None`: it was finished before, or the peer left between
    /// two questions. A peer that leaves within a question sent something malformed.
    pub(super) fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8]) -> Option<ErrorReason> {
        if std::mem::replace(&mut self.finished, true) {
            return None;
        }
        reason.or_else(|| (!unread.is_empty()).then_some(ErrorReason::Malformed))
    }
}

/// The stages of a connection that carries one question and expects the PBX to confirm the verdict: FastAGI and
/// FreeSWITCH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum VerdictDelivery {
    /// The question is not complete.
    #[default]
    Reading,
    /// The verdict was written, and the PBX has confirmed none of its commands.
    Unconfirmed,
    /// The PBX confirmed the verdict, or has ended the call and cannot confirm it.
    Concluded,
}

impl VerdictDelivery {
    pub(super) const fn is_reading(self) -> bool {
        matches!(self, Self::Reading)
    }

    /// [`super::Dialect::patience`] of these dialects.
    pub(super) const fn patience(self) -> Patience {
        if self.is_reading() { Patience::Frame } else { Patience::Closing }
    }

    /// The fault of a connection that ends for this reason before its question is complete. `None`: the peer sent no
    /// byte, as a health check does that only connects: that is no fault.
    pub(super) fn incomplete(reason: ErrorReason, unread: &[u8]) -> Option<ErrorReason> {
        (!unread.is_empty()).then_some(reason)
    }

    /// The fault of a connection that ends after its answer: a verdict that was never confirmed. Reports it once.
    pub(super) fn take_unconfirmed(&mut self) -> Option<ErrorReason> {
        (std::mem::replace(self, Self::Concluded) == Self::Unconfirmed).then_some(ErrorReason::VerdictUnread)
    }
}
