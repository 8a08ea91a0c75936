//! Sets of byte ranges as a client keeps them, apart from the server's own on purpose.

use std::ops::Range;

/// Half-open ranges, sorted, none touching another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.0.push(range);
        self.0.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(self.0.len());
        for range in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        self.0 = merged;
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for range in &other.0 {
            self.add(range.clone());
        }
    }

    /// What of `0..length` is not in it.
    pub(crate) fn missing(&self, length: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = 0;
        for range in &self.0 {
            if range.start > at {
                missing.push(at..range.start.min(length));
            }
            at = at.max(range.end);
        }
        if at < length {
            missing.push(at..length);
        }
        missing
    }

    /// What of `other` is not in it.
    pub(crate) fn lacks(&self, other: &Self) -> Option<Range<u64>> {
        other
            .0
            .iter()
            .find(|range| {
                !self
                    .0
                    .iter()
                    .any(|have| have.start <= range.start && range.end <= have.end)
            })
            .cloned()
    }

    /// The end of the range that starts at 0.
    pub(crate) fn offset(&self) -> u64 {
        self.0
            .first()
            .filter(|range| range.start == 0)
            .map_or(0, |range| range.end)
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut all = Self::default();
        for range in ranges {
            all.add(range);
        }
        all
    }
}

#[test]
fn ranges_merge_with_their_neighbours() {
    let ranges: Ranges = [10..20, 0..5, 5..7, 18..25].into_iter().collect();
    assert_eq!(ranges, Ranges(vec![0..7, 10..25]));
    assert_eq!(ranges.offset(), 7);
    assert_eq!(ranges.missing(30), [7..10, 25..30]);
}

#[test]
fn ranges_know_what_they_lack() {
    let have: Ranges = [0..7, 10..25].into_iter().collect();
    assert_eq!(have.lacks(&[3..7, 12..14].into_iter().collect()), None);
    assert_eq!(
        have.lacks(&[0..7, 9..11].into_iter().collect()),
        Some(9..11)
    );
    assert_eq!(Ranges::default().offset(), 0);
    let with_a_hole: Ranges = [3..5, 7..9].into_iter().collect();
    assert_eq!(with_a_hole.offset(), 0);
}
