//! Random bytes and moments. Every run uses other ones; a failing test prints the seed's consequences in the server's log.

/// A small generator; its quality does not matter.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by the system.
    pub(crate) fn new() -> Self {
        Self::seeded(getrandom::u64().expect("the system has randomness"))
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number of `range`.
    pub(crate) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start)
    }

    /// A file's content.
    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        let length = usize::try_from(length).expect("fits into memory");
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Puts a list into random order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = self.within(0..last as u64 + 1);
            list.swap(last, usize::try_from(other).expect("an index of the list"));
        }
    }
}
