//! The lines of records, ready to be appended: in one file, or in several if the clock was set back between two lines.

use crate::audit::head::ChainHead;
use crate::audit::line::NewLine;
use crate::audit::record::{About, AuditRecord, LogTime};
use crate::limits::AUDIT_TIME_BACK_MAX;

/// Lines that are written at once.
pub(super) struct NewLines {
    /// The lines of each file; there are several if the clock was set back between two lines.
    pub(super) parts: Vec<NewPart>,
    pub(super) count: u64,
    /// The last line.
    pub(super) last: ChainHead,
}

/// New lines of one file.
pub(super) struct NewPart {
    /// The sequence of the first line.
    pub(super) first: u64,
    pub(super) bytes: Vec<u8>,
    /// The latest time of a line of the file, in milliseconds since 1970.
    pub(super) latest_ms: u64,
}

impl NewLines {
    /// The lines of packed records behind the line `last`, in a file whose latest line is of `latest_ms`. `start` is
    /// the sequence of the `start` line of this process.
    pub(super) fn of(mut packed: &[u8], now_ms: u64, latest_ms: u64, last: ChainHead, start: &mut u64) -> Self {
        let back_max_ms = u64::try_from(AUDIT_TIME_BACK_MAX.as_millis()).unwrap_or(u64::MAX);
        let (mut count, mut last) = (0, last);
        let mut part = NewPart { first: last.sequence + 1, bytes: vec![], latest_ms };
        let mut parts = vec![];
        while let Some(mut record) = AuditRecord::unpack(&mut packed) {
            if record.time == LogTime(0) {
                record.time = LogTime(now_ms);
            }
            if record.time.0.saturating_add(back_max_ms) < part.latest_ms {
                // The clock was set back: the times of a file stay in order, so that a search may rely on it.
                let next = NewPart { first: last.sequence + 1, bytes: vec![], latest_ms: 0 };
                parts.push(std::mem::replace(&mut part, next));
            }
            last.sequence += 1;
            if record.event == About::Start.name() {
                *start = last.sequence;
            }
            (record.id.start, record.of.start) = (*start, *start);
            part.latest_ms = part.latest_ms.max(record.time.0);
            last.hash = NewLine { sequence: last.sequence, record, previous: last.hash }.write(&mut part.bytes);
            count += 1;
        }
        parts.push(part);
        Self { parts, count, last }
    }
}
