//! Random numbers from a seed that is printed, so that a failing run can be made again.

/// xorshift64*: small, and good enough to choose exit codes.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one test of a run; equal seeds and names give equal numbers, whatever runs beside it.
    pub(crate) fn new(seed: u64, name: &str) -> Random {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in name.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Random(state | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: i32, high: i32) -> i32 {
        let width = u64::try_from(high - low + 1).expect("low is not above high");
        low + i32::try_from((self.next() >> 33) % width).expect("less than the width, which came from an i32")
    }

    /// An exit code that nothing else uses: not 0, not 1, not 125 and above.
    pub(crate) fn exit_code(&mut self) -> i32 {
        self.between(2, 124)
    }
}
