//! The least of several costs, each for its weight.

/// The first real server of those with the least cost for its weight, of those offered so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Least(Option<(usize, u64, u32)>);

impl Least {
    /// Takes one more into account: its index, cost and weight, which is above 0. Costs are below 2^47.
    pub(super) fn offer(&mut self, index: usize, cost: u64, weight: u32) {
        // cost / weight compared by cross-multiplication, as the kernel does.
        if self.0.is_none_or(|(_, least, of)| least * u64::from(weight) > cost * u64::from(of)) {
            self.0 = Some((index, cost, weight));
        }
    }

    /// Its index; none: nobody was offered.
    pub(super) fn index(self) -> Option<usize> {
        self.0.map(|(index, ..)| index)
    }
}
