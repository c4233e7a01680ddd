//! A chunk of records, passed from the thread that reads the store to the thread that restores sessions.

use crate::limits::RECORDS_PER_CHUNK;

/// Up to [`RECORDS_PER_CHUNK`] records, in one allocation.
#[derive(Debug, Default)]
pub(super) struct RecordChunk {
    bytes: Vec<u8>,
    /// For each record, the positions where its key and its value end.
    ends: Vec<(usize, usize)>,
}

impl RecordChunk {
    /// Adds a record. Once the chunk is full, it is returned, and an empty one is left.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Option<Self> {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
        (self.ends.len() >= RECORDS_PER_CHUNK).then(|| std::mem::take(self))
    }

    /// Every record as key and value, in the order in which they were added.
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
    fn a_chunk_has_the_records_that_were_added_and_is_returned_when_full() {
        let mut chunk = RecordChunk::default();
        for number in 1..RECORDS_PER_CHUNK {
            assert!(chunk.add(number.to_string().as_bytes(), b"").is_none());
        }
        let full = chunk.add(b"last", b"value").unwrap();
        let last = full.records().last().unwrap();
        assert_eq!((full.records().count(), last), (RECORDS_PER_CHUNK, (&b"last"[..], &b"value"[..])));
        assert_eq!(full.records().nth(1).unwrap(), (&b"2"[..], &b""[..]));
        assert_eq!(chunk.records().count(), 0);
    }
}
