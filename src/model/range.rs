//! Half-open byte ranges, and the set of ranges that an upload has received.
//!
//! Ranges decide what is there and what is missing; no count or sum ever does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in an upload, in bytes from its start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// How many bytes a whole upload has.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Length(pub u64);

impl Offset {
    /// The position as a number of bytes.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Length {
    /// The length as a number of bytes.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The bytes from `start` up to, not including, `end`. Never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `None` if the range would be empty or reversed.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first byte.
    #[must_use]
    pub fn start(self) -> u64 {
        self.start
    }

    /// The byte after the last one.
    #[must_use]
    pub fn end(self) -> u64 {
        self.end
    }

    /// How many bytes; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// What the two have in common.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether the two share a byte.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// A set of bytes, kept as coalesced ranges in order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RangeSet(rangemap::RangeSet<u64>);

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range; what touches or overlaps is merged.
    pub fn insert(&mut self, range: ByteRange) {
        self.0.insert(range.start..range.end);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: ByteRange) {
        self.0.remove(range.start..range.end);
    }

    /// Whether no byte is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every byte of `range` is in the set.
    #[must_use]
    pub fn covers(&self, range: ByteRange) -> bool {
        self.0
            .get(&range.start)
            .is_some_and(|found| found.end >= range.end)
    }

    /// Whether the set holds all of an upload of this length.
    #[must_use]
    pub fn covers_length(&self, length: Length) -> bool {
        ByteRange::new(0, length.get()).is_none_or(|all| self.covers(all))
    }

    /// The end of the range that starts at 0: how far the upload reaches without a hole.
    #[must_use]
    pub fn contiguous(&self) -> Offset {
        Offset(self.contiguous_from(0))
    }

    /// How far the bytes reach without a hole from `offset` on; `offset` itself if nothing is there.
    #[must_use]
    pub fn contiguous_from(&self, offset: u64) -> u64 {
        self.0.get(&offset).map_or(offset, |range| range.end)
    }

    /// The byte after the last one in the set; 0 for the empty set.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    /// The ranges of `within` that are not in the set, in order.
    pub fn gaps(&self, within: ByteRange) -> impl Iterator<Item = ByteRange> + '_ {
        self.0
            .gaps(&(within.start..within.end))
            .filter_map(|gap| ByteRange::new(gap.start, gap.end))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The parts of `within` that are in the set, in order.
    pub fn overlapping(&self, within: ByteRange) -> impl Iterator<Item = ByteRange> + '_ {
        self.0
            .overlapping(&(within.start..within.end))
            .filter_map(move |found| {
                ByteRange::new(found.start.max(within.start), found.end.min(within.end))
            })
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The ranges, coalesced, in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.0.iter().map(|range| ByteRange {
            start: range.start,
            end: range.end,
        })
    }

    /// How many bytes are in the set.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(ByteRange::len).sum()
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = ByteRange> {
        (0_u64..64, 1_u64..16).prop_map(|(start, len)| ByteRange {
            start,
            end: start + len,
        })
    }

    proptest! {
        /// Whatever the order and overlap of insertions, the set answers like one flag a byte.
        #[test]
        fn answers_like_a_flag_for_each_byte(ranges in prop::collection::vec(range(), 0..12), asked in range()) {
            let set: RangeSet = ranges.iter().copied().collect();
            let mut flags = [false; 96];
            for range in &ranges {
                for byte in range.start..range.end {
                    flags[usize::try_from(byte).expect("small")] = true;
                }
            }
            let has = |byte: u64| flags[usize::try_from(byte).expect("small")];
            let prefix = (0..96).take_while(|byte| has(*byte)).count() as u64;
            prop_assert_eq!(set.contiguous(), Offset(prefix));
            prop_assert_eq!(set.covers(asked), (asked.start..asked.end).all(has));
            prop_assert_eq!(set.total(), (0..96).filter(|byte| has(*byte)).count() as u64);
            let missing: u64 = set.gaps(asked).map(ByteRange::len).sum();
            prop_assert_eq!(missing, (asked.start..asked.end).filter(|byte| !has(*byte)).count() as u64);
            let there: u64 = set.overlapping(asked).map(ByteRange::len).sum();
            prop_assert_eq!(there + missing, asked.len());
        }
    }
}
