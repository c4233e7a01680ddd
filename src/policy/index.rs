//! Open-addressing hash table; a lookup costs one cache miss, for organizations of a million users.
//!
//! One bucket fills one cache line of 64 bytes:
//!
//! ```text
//! bytes  0..32   tags     8 × u32   upper half of the hash of each name; 0 where the entry is vacant
//! bytes 32..64   entries  8 × u32   the user of each name; u32::MAX where vacant, and then in all later places too
//! ```
//!
//! The lower half of the hash selects the bucket; a full bucket overflows into the next one. The table of a library
//! (`std`, `hashbrown`) keeps the tags apart from the entries and costs two cache misses a lookup: with this table a
//! decision about a user in no cache takes 620 ns instead of 970 (`cargo bench --bench timings`). The table has no
//! removal: [`super::directory`] builds a new one for every policy.

use std::hint::black_box;

/// Entries of one bucket: with their tags they fill a cache line of 64 bytes.
const ENTRIES_PER_BUCKET: usize = 8;
/// Mean number of entries of a bucket, at most. With more, too many names overflow into the next bucket.
const ENTRIES_PER_BUCKET_MEAN_MAX: usize = 5;
/// The value of a vacant entry.
const VACANT: u32 = u32::MAX;

/// A table from names to entries. The table stores hashes and entries only; its owner has the names and compares them.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    /// The number of buckets is 0 or a power of two.
    buckets: Vec<Bucket>,
    length: usize,
}

/// Eight tags and eight entries. The entries are filled from the first place on: after a vacant one all are vacant.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    tags: [u32; ENTRIES_PER_BUCKET],
    entries: [u32; ENTRIES_PER_BUCKET],
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; ENTRIES_PER_BUCKET], entries: [VACANT; ENTRIES_PER_BUCKET] };

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.tags.iter().copied().zip(self.entries.iter().copied())
    }
}

impl NameIndex {
    /// Number of names in the table.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// The entry with this hash for which `is_match` is true: `is_match` compares the name of the entry.
    pub(super) fn find(&self, hash: u64, is_match: impl Fn(u32) -> bool) -> Option<u32> {
        for position in self.probe(hash) {
            for (tag, entry) in self.buckets.get(position)?.iter() {
                if entry == VACANT {
                    return None;
                }
                if tag == tag_of(hash) && is_match(entry) {
                    return Some(entry);
                }
            }
        }
        None
    }

    /// Reads the bucket of this hash, so that the processor loads its cache line. For [`super::prefetch`].
    pub(super) fn touch(&self, hash: u64) {
        black_box(self.buckets.get(self.first(hash)).and_then(|bucket| bucket.tags.first().copied()));
    }

    /// An entry with the tag of this hash in the hash's bucket, without comparing the name: nearly always the entry
    /// that [`NameIndex::find`] returns. For [`super::prefetch`].
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        let tag = tag_of(hash);
        let bucket = self.buckets.get(self.first(hash))?;
        // Reads all entries without a branch: a mispredicted branch would delay the prefetch of the other names.
        let found = bucket.iter().fold(VACANT, |found, (of, entry)| found.min(if of == tag { entry } else { VACANT }));
        (found != VACANT).then_some(found)
    }

    /// Makes room for `names` names in total. `hash_of` returns the hash of an entry's name.
    pub(super) fn reserve(&mut self, names: usize, hash_of: impl Fn(u32) -> u64) {
        let buckets = names.div_ceil(ENTRIES_PER_BUCKET_MEAN_MAX).next_power_of_two();
        if names == 0 || buckets <= self.buckets.len() {
            return;
        }
        let before = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; buckets]);
        let entries = before.iter().flat_map(Bucket::iter).map(|(_, entry)| entry);
        for entry in entries.filter(|&entry| entry != VACANT) {
            self.put(hash_of(entry), entry);
        }
    }

    /// Adds an entry. The caller has checked that the table does not have its name.
    pub(super) fn insert(&mut self, hash: u64, entry: u32, hash_of: impl Fn(u32) -> u64) {
        self.length += 1;
        self.reserve(self.length, hash_of);
        self.put(hash, entry);
    }

    fn put(&mut self, hash: u64, entry: u32) {
        // INVARIANT: `reserve` has made room, so at least one bucket has a vacant entry.
        for position in self.probe(hash) {
            let Some(bucket) = self.buckets.get_mut(position) else { return };
            let mut places = bucket.tags.iter_mut().zip(&mut bucket.entries);
            if let Some((tag, vacant)) = places.find(|(_, entry)| **entry == VACANT) {
                (*tag, *vacant) = (tag_of(hash), entry);
                return;
            }
        }
    }

    /// The positions of all buckets, from the bucket of the hash on.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.first(hash), self.buckets.len());
        (0..count).map(move |step| first.wrapping_add(step) & count.wrapping_sub(1))
    }

    /// The position of the hash's bucket. In an empty table the position does not exist.
    fn first(&self, hash: u64) -> usize {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) as usize & self.buckets.len().wrapping_sub(1)
    }
}

const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inserts `count` entries with the hashes of `hash_of`, and checks that every entry and no other is found.
    fn finds_every_entry(count: u32, hash_of: impl Fn(u32) -> u64 + Copy) {
        let mut names = NameIndex::default();
        assert_eq!(names.find(hash_of(0), |_| true), None, "an empty table has no entry");
        for entry in 0..count {
            names.insert(hash_of(entry), entry, hash_of);
        }
        assert_eq!(names.len(), count as usize);
        for entry in 0..count {
            assert_eq!(names.find(hash_of(entry), |found| found == entry), Some(entry));
            names.touch(hash_of(entry));
        }
        assert_eq!(names.find(hash_of(count), |found| found == count), None);
    }

    #[test]
    fn an_entry_is_found_with_any_number_of_others_in_its_bucket() {
        for count in [1, 5, 6, 8, 9, 40, 41, 2_000] {
            finds_every_entry(count, |entry| u64::from(entry).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // All hashes select one bucket; in the next case all have one tag too.
            finds_every_entry(count, |entry| u64::from(entry) << 32);
            finds_every_entry(count, |_| 7);
            // All hashes select the last bucket: probing continues at the first.
            finds_every_entry(count, |_| u64::MAX);
        }
    }

    #[test]
    fn the_likely_entry_is_the_only_one_with_its_tag() {
        let hash_of = |entry: u32| u64::from(entry).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut names = NameIndex::default();
        names.reserve(100, hash_of);
        for entry in 0..5 {
            names.insert(hash_of(entry), entry, hash_of);
        }
        assert!((0..5).all(|entry| names.likely(hash_of(entry)) == Some(entry)));
        assert_eq!((names.likely(hash_of(9)), NameIndex::default().likely(7)), (None, None));
    }
}
