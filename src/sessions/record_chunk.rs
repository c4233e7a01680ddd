//! Records on their way from the thread that reads them to the one that takes them up.

use crate::limits::RECORDS_PER_CHUNK;

/// Some records, one after another.
#[derive(Debug, Default)]
pub(super) struct RecordChunk {
    bytes: Vec<u8>,
    /// Of each record where its key ends, and where its value does.
    ends: Vec<(usize, usize)>,
}

impl RecordChunk {
    /// Adds a record; the batch itself once it is full, which leaves an empty one.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Option<Self> {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
        (self.ends.len() >= RECORDS_PER_CHUNK).then(|| std::mem::take(self))
    }

    /// Every record, key and value, in the order they came.
    pub(super) fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, end)| {
            let key = self.bytes.get(start..key_end).unwrap_or_default();
            start = end;
            (key, self.bytes.get(key_end..end).unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_added_and_is_full_in_time() {
        let mut batch = RecordChunk::default();
        for number in 1..RECORDS_PER_CHUNK {
            assert!(batch.add(number.to_string().as_bytes(), b"").is_none());
        }
        let full = batch.add(b"last", b"value").unwrap();
        let last = full.records().last().unwrap();
        assert_eq!((full.records().count(), last), (RECORDS_PER_CHUNK, (&b"last"[..], &b"value"[..])));
        assert_eq!(full.records().nth(1).unwrap(), (&b"2"[..], &b""[..]));
        assert_eq!(batch.records().count(), 0);
    }
}
