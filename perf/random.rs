//! Random numbers for orders and choices, the same ones in every run.

/// A small generator of random numbers (xorshift64*, Vigna 2016).
pub struct Random(pub u64);

impl Random {
    /// A number below `count`.
    #[allow(clippy::cast_possible_truncation, reason = "below count, which is a u32")]
    pub fn below(&mut self, count: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (((mixed >> 32) * u64::from(count)) >> 32) as u32
    }
}
