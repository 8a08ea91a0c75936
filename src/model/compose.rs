//! How an object is put together from others: which bytes of which source make which part.
//!
//! Pure arithmetic. Parts follow the sources' own borders where stores take such parts, so that the store can copy them by
//! itself; where sources are too small, a part takes from several.

use super::PartNumber;
use super::plan::{MAX_PART_BYTES, MAX_PARTS, MIN_PART_BYTES};
use super::range::{ByteRange, Length};

/// A part, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The part's number.
    pub number: PartNumber,
    /// The bytes of the whole that it holds.
    pub range: ByteRange,
    /// What it is made of, in order; never empty.
    pub slices: Vec<Slice>,
}

/// Some bytes of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Which source, from 0.
    pub source: usize,
    /// Which bytes of it.
    pub range: ByteRange,
    /// Whether these are all that it has.
    pub whole: bool,
    /// Whether the source is so large that stores copy a stretch of it.
    large: bool,
}

impl Piece {
    /// What it is made of, if a store can be told to copy it: all of one source, or a stretch of a large one.
    #[must_use]
    pub fn copied(&self) -> Option<Slice> {
        match self.slices[..] {
            [slice] if slice.whole || slice.large => Some(slice),
            _ => None,
        }
    }
}

/// Cuts the sources, one after the other, into parts. With `equal`, all but the last have that size in bytes. Sources may be
/// empty. `None` if it takes more parts than there may be.
#[must_use]
pub fn pieces(sources: &[Length], equal: Option<u64>) -> Option<Vec<Piece>> {
    let mut ends = Vec::with_capacity(sources.len());
    let mut total = 0_u64;
    for source in sources {
        total = total.checked_add(source.get())?;
        ends.push(total);
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < total {
        let end = match equal {
            Some(size) => at.saturating_add(size).min(total),
            None => next_cut(&ends, at, total),
        };
        let number = u32::try_from(pieces.len() + 1)
            .ok()
            .filter(|number| *number <= MAX_PARTS)?;
        let range = ByteRange::new(at, end)?;
        pieces.push(Piece {
            number: PartNumber(number),
            range,
            slices: slices(sources, &ends, range),
        });
        at = end;
    }
    Some(pieces)
}

/// Where the part that begins at `at` ends. What is left of a source behind it is nothing, or enough for a part.
fn next_cut(ends: &[u64], at: u64, total: u64) -> u64 {
    let end = end_of_source(ends, at);
    let rest = end - at;
    if rest >= MIN_PART_BYTES || end == total {
        return match rest {
            0..=MAX_PART_BYTES => end,
            rest if rest - MAX_PART_BYTES < MIN_PART_BYTES => at + MAX_PART_BYTES - MIN_PART_BYTES,
            _ => at + MAX_PART_BYTES,
        };
    }
    let least = at + MIN_PART_BYTES;
    if least >= total {
        return total;
    }
    let end = end_of_source(ends, least);
    let on_a_border = ends.binary_search(&least).is_ok();
    if on_a_border || end - least >= MIN_PART_BYTES {
        least
    } else {
        end
    }
}

/// Where the source ends that the byte at `at` is of.
fn end_of_source(ends: &[u64], at: u64) -> u64 {
    ends[ends.partition_point(|end| *end <= at)]
}

fn slices(sources: &[Length], ends: &[u64], range: ByteRange) -> Vec<Slice> {
    let first = ends.partition_point(|end| *end <= range.start());
    (first..sources.len())
        .map_while(|source| {
            let size = sources[source].get();
            let start = ends[source] - size;
            (start < range.end()).then_some((source, start, size))
        })
        .filter_map(|(source, start, size)| {
            let from = range.start().max(start) - start;
            let to = range.end().min(start + size) - start;
            Some(Slice {
                source,
                range: ByteRange::new(from, to)?,
                whole: to - from == size,
                large: size > MIN_PART_BYTES,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn size() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            1..MIN_PART_BYTES,
            Just(MIN_PART_BYTES),
            MIN_PART_BYTES..40 * MIB,
            MAX_PART_BYTES - MIB..3 * MAX_PART_BYTES,
        ]
    }

    proptest! {
        /// The parts are the sources, byte for byte and in order, and of sizes that stores take.
        #[test]
        fn parts_are_the_sources(
            sizes in prop::collection::vec(size(), 0..20),
            equal in prop::option::of(MIN_PART_BYTES..64 * MIB),
        ) {
            let sources: Vec<Length> = sizes.iter().copied().map(Length).collect();
            let total: u64 = sizes.iter().sum();
            let Some(pieces) = pieces(&sources, equal) else {
                prop_assert!(equal.is_some_and(|size| total.div_ceil(size) > u64::from(MAX_PARTS)));
                return Ok(());
            };
            let mut at = 0;
            let mut next = (0, 0);
            for (index, piece) in pieces.iter().enumerate() {
                prop_assert_eq!(piece.number.0 as usize, index + 1);
                prop_assert_eq!(piece.range.start(), at);
                at = piece.range.end();
                let last = index + 1 == pieces.len();
                prop_assert!(last || piece.range.len() >= MIN_PART_BYTES);
                prop_assert!(piece.range.len() <= MAX_PART_BYTES);
                if let Some(size) = equal {
                    prop_assert!(last || piece.range.len() == size);
                } else if piece.copied().is_none() {
                    prop_assert!(piece.range.len() < 2 * MIN_PART_BYTES, "streamed parts are small");
                }
                prop_assert_eq!(piece.slices.iter().map(|slice| slice.range.len()).sum::<u64>(), piece.range.len());
                for slice in &piece.slices {
                    while sizes[next.0] == next.1 {
                        next = (next.0 + 1, 0);
                    }
                    prop_assert_eq!((slice.source, slice.range.start()), next);
                    next.1 = slice.range.end();
                    prop_assert!(next.1 <= sizes[slice.source]);
                    prop_assert_eq!(slice.whole, slice.range.len() == sizes[slice.source]);
                }
            }
            prop_assert_eq!(at, total);
        }
    }

    fn shown(sizes: &[u64], equal: Option<u64>) -> Vec<(u64, bool)> {
        let sources: Vec<Length> = sizes.iter().map(|mib| Length(mib * MIB)).collect();
        let pieces = pieces(&sources, equal.map(|mib| mib * MIB)).expect("few enough");
        pieces
            .iter()
            .map(|piece| (piece.range.len() / MIB, piece.copied().is_some()))
            .collect()
    }

    #[test]
    fn large_sources_are_copied_whole_and_small_ones_gathered() {
        assert_eq!(shown(&[20, 20, 20], None), [(20, true); 3]);
        assert_eq!(shown(&[20, 1], None), [(20, true), (1, true)]);
        assert_eq!(shown(&[3, 20], None), [(5, false), (18, true)]);
        assert_eq!(shown(&[3, 4, 20], None), [(7, false), (20, true)]);
        assert_eq!(shown(&[1, 1, 1], None), [(3, false)]);
        assert_eq!(shown(&[3, 2, 20], None), [(5, false), (20, true)]);
        assert_eq!(shown(&[3], None), [(3, true)]);
        assert_eq!(shown(&[0, 0], None), []);
        // A stretch of a source of 5 MiB is not copied, of a larger one it is.
        assert_eq!(shown(&[5, 5], Some(8)), [(8, false), (2, false)]);
        assert_eq!(
            shown(&[20, 20], Some(8)),
            [(8, true), (8, true), (8, false), (8, true), (8, true)]
        );
    }

    #[test]
    fn more_parts_than_there_may_be_are_none() {
        let sources = vec![Length(MIN_PART_BYTES); 10_001];
        assert_eq!(pieces(&sources, None), None);
        assert!(pieces(&sources[1..], None).is_some());
    }
}
