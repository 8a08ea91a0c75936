//! The part grid: how an upload's bytes fall into the cells that a store takes.
//!
//! Pure arithmetic, frozen when the upload is created, so that any process computes the same part numbers and ranges for
//! the same upload. S3 wants parts of at least 5 MiB but for the last, and at most 10,000 of them.

use std::fmt;
use std::str::FromStr;

use super::range::{ByteRange, Length};

const MIB: u64 = 1024 * 1024;

/// The smallest part that S3 takes, but for the last one.
pub const MIN_PART_BYTES: u64 = 5 * MIB;
/// The largest part that S3 takes.
pub const MAX_PART_BYTES: u64 = 5 * 1024 * MIB;
/// The most parts that a multipart upload may have.
pub const MAX_PARTS: u32 = 10_000;
/// Growing cells double in size after each this many parts.
const PARTS_PER_STEP: u32 = 1_000;

/// The number of a part, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(pub u32);

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One place of the grid: a part number and the bytes that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The part's number.
    pub number: PartNumber,
    /// All the bytes that the part may have. Where the upload's length is known, the last cell ends with it.
    pub range: ByteRange,
}

/// How an upload is cut into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// One cell without an end: a store that is written in place.
    OneCell,
    /// Cells of the same size.
    Equal {
        /// The size of each cell but the last, in bytes.
        cell: u64,
    },
    /// Cells that double in size after each 1,000 parts, for uploads whose length is not known.
    Growing {
        /// The size of the first cells, in bytes.
        base: u64,
    },
    /// Parts that the client cuts as it likes and puts past the server: which bytes each of them is, only the receipts tell.
    Adopted,
}

impl Plan {
    /// The plan for a store of parts.
    ///
    /// `cell` is the wanted size in bytes; it is raised to `least`, the smallest that the store takes, and so far that 10,000
    /// parts hold `length`.
    /// With `equal_parts` an upload of unknown length gets equal cells too, and can be no longer than
    /// [`max_length`](Self::max_length) says.
    #[must_use]
    pub fn for_parts(cell: u64, least: u64, length: Option<Length>, equal_parts: bool) -> Self {
        let cell = cell.clamp(least, MAX_PART_BYTES);
        match length {
            Some(length) if length.get() > cell * u64::from(MAX_PARTS) => {
                let needed = length
                    .get()
                    .div_ceil(u64::from(MAX_PARTS))
                    .next_multiple_of(MIB);
                Self::Equal {
                    cell: needed.min(MAX_PART_BYTES),
                }
            }
            Some(_) => Self::Equal { cell },
            None if equal_parts => Self::Equal { cell },
            None => Self::Growing { base: cell },
        }
    }

    /// The most bytes that an upload under this plan can have.
    #[must_use]
    pub fn max_length(self) -> Length {
        match self {
            Self::OneCell => Length(u64::MAX),
            Self::Adopted => Length(MAX_PART_BYTES * u64::from(MAX_PARTS)),
            Self::Equal { cell } => Length(cell.saturating_mul(u64::from(MAX_PARTS))),
            Self::Growing { base } => Length(start_of_growing(base, MAX_PARTS + 1)),
        }
    }

    /// The cell that `offset` falls into, or `None` beyond [`max_length`](Self::max_length) or the upload's length, and where
    /// the grid is the client's own.
    #[must_use]
    pub fn cell_at(self, offset: u64, length: Option<Length>) -> Option<Cell> {
        let end = length.unwrap_or(Length(u64::MAX)).min(self.max_length());
        if offset >= end.get() {
            return None;
        }
        let number = match self {
            Self::Adopted => return None,
            Self::OneCell => 1,
            Self::Equal { cell } => u32::try_from(offset / cell).ok()? + 1,
            Self::Growing { base } => {
                let (mut step, mut start) = (0, 0);
                let mut size = base;
                while offset - start >= size * u64::from(PARTS_PER_STEP) {
                    start += size * u64::from(PARTS_PER_STEP);
                    step += 1;
                    size = size_in_step(base, step);
                }
                step * PARTS_PER_STEP + 1 + u32::try_from((offset - start) / size).ok()?
            }
        };
        self.cell(PartNumber(number), length)
    }

    /// The cell of a part, or `None` if the number is not of this grid or lies beyond the upload's length, and where the grid is
    /// the client's own.
    #[must_use]
    pub fn cell(self, number: PartNumber, length: Option<Length>) -> Option<Cell> {
        let PartNumber(n) = number;
        if n == 0 || n > MAX_PARTS {
            return None;
        }
        let (start, end) = match self {
            Self::OneCell if n == 1 => (0, u64::MAX),
            Self::OneCell | Self::Adopted => return None,
            Self::Equal { cell } => (
                u64::from(n - 1).checked_mul(cell)?,
                u64::from(n).checked_mul(cell)?,
            ),
            Self::Growing { base } => (start_of_growing(base, n), start_of_growing(base, n + 1)),
        };
        let end = length.map_or(end, |length| end.min(length.get()));
        ByteRange::new(start, end).map(|range| Cell { number, range })
    }

    /// The cells that `range` touches, in order.
    pub fn cells(self, range: ByteRange, length: Option<Length>) -> impl Iterator<Item = Cell> {
        std::iter::successors(self.cell_at(range.start(), length), move |cell| {
            let next = self.cell(PartNumber(cell.number.0 + 1), length)?;
            (next.range.start() < range.end()).then_some(next)
        })
    }
}

/// Where the part `n` of growing cells starts, in bytes.
fn start_of_growing(base: u64, n: u32) -> u64 {
    let before = n - 1;
    let whole_steps: u64 = (0..before / PARTS_PER_STEP)
        .map(|step| size_in_step(base, step) * u64::from(PARTS_PER_STEP))
        .sum();
    let in_step = u64::from(before % PARTS_PER_STEP);
    whole_steps + in_step * size_in_step(base, before / PARTS_PER_STEP)
}

/// The size of growing cells in a step of 1,000 parts, from 0, in bytes.
fn size_in_step(base: u64, step: u32) -> u64 {
    (base << step).min(MAX_PART_BYTES)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneCell => f.write_str("one"),
            Self::Equal { cell } => write!(f, "equal:{cell}"),
            Self::Growing { base } => write!(f, "growing:{base}"),
            Self::Adopted => f.write_str("adopted"),
        }
    }
}

/// The text is no plan that this version knows.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a part plan")]
pub struct UnknownPlan(String);

impl FromStr for Plan {
    type Err = UnknownPlan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownPlan(text.to_owned());
        match text {
            "one" => return Ok(Self::OneCell),
            "adopted" => return Ok(Self::Adopted),
            _ => {}
        }
        let (kind, size) = text.split_once(':').ok_or_else(unknown)?;
        let size = size
            .parse()
            .ok()
            .filter(|size| (1..=MAX_PART_BYTES).contains(size))
            .ok_or_else(unknown)?;
        match kind {
            "equal" => Ok(Self::Equal { cell: size }),
            "growing" => Ok(Self::Growing { base: size }),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan() -> impl Strategy<Value = Plan> {
        (
            1_u64..64 * MIB,
            any::<bool>(),
            prop::option::of(1_u64..48 << 40),
        )
            .prop_map(|(cell, equal, length)| {
                Plan::for_parts(cell, MIN_PART_BYTES, length.map(Length), equal)
            })
    }

    proptest! {
        /// Each offset falls into exactly the cell that its part number names.
        #[test]
        fn offset_and_part_number_agree(plan in plan(), at in 0.0_f64..1.0) {
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any offset will do")]
            let offset = (plan.max_length().get() as f64 * at * 0.999) as u64;
            let cell = plan.cell_at(offset, None).expect("within the plan");
            prop_assert!(cell.range.start() <= offset && offset < cell.range.end());
            prop_assert_eq!(plan.cell(cell.number, None), Some(cell));
            prop_assert!((MIN_PART_BYTES..=MAX_PART_BYTES).contains(&cell.range.len()));
            prop_assert!(cell.number.0 >= 1 && cell.number.0 <= MAX_PARTS);
        }

        /// Neighbouring cells touch, without a hole or an overlap.
        #[test]
        fn cells_touch(plan in plan(), n in 1..MAX_PARTS) {
            let this = plan.cell(PartNumber(n), None).expect("of the grid");
            let next = plan.cell(PartNumber(n + 1), None).expect("of the grid");
            prop_assert_eq!(this.range.end(), next.range.start());
        }

        /// A known length fits, in at most 10,000 parts, and the last cell ends with it.
        #[test]
        fn a_known_length_fits(cell in 1_u64..64 * MIB, length in 1_u64..48 << 40, equal in any::<bool>()) {
            let length = Length(length);
            let plan = Plan::for_parts(cell, MIN_PART_BYTES, Some(length), equal);
            prop_assert!(plan.max_length() >= length);
            let last = plan.cell_at(length.get() - 1, Some(length)).expect("the last byte has a cell");
            prop_assert_eq!(last.range.end(), length.get());
            prop_assert_eq!(plan.cell_at(length.get(), Some(length)), None);
        }

        #[test]
        fn text_and_back(plan in plan()) {
            prop_assert_eq!(plan.to_string().parse::<Plan>().expect("its own text"), plan);
        }
    }

    #[test]
    fn unknown_lengths_reach_terabytes_from_small_cells() {
        let plan = Plan::for_parts(8 * MIB, MIN_PART_BYTES, None, false);
        assert!(plan.max_length().get() > 5 << 40);
        assert_eq!(
            plan.cell(PartNumber(1_001), None)
                .expect("of the grid")
                .range
                .len(),
            16 * MIB
        );
    }

    #[test]
    fn a_grid_of_the_clients_own_has_no_cells() {
        let plan: Plan = "adopted".parse().expect("its own text");
        assert_eq!(plan, Plan::Adopted);
        assert_eq!(plan.to_string(), "adopted");
        assert_eq!(plan.cell_at(0, None), None);
        assert_eq!(plan.cell(PartNumber(1), Some(Length(1))), None);
        let range = ByteRange::new(0, 1).expect("not empty");
        assert_eq!(plan.cells(range, Some(Length(1))).count(), 0);
    }

    #[test]
    fn cells_of_a_range_stop_at_its_end() {
        let plan = Plan::Equal {
            cell: MIN_PART_BYTES,
        };
        let range = ByteRange::new(MIN_PART_BYTES - 1, 2 * MIN_PART_BYTES).expect("not empty");
        let numbers: Vec<u32> = plan.cells(range, None).map(|cell| cell.number.0).collect();
        assert_eq!(numbers, [1, 2]);
    }
}
