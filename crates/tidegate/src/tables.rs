//! `Tables`: memory that the loops of a generation have in common besides their counters.
//!
//! Each has the same number of words, which are zero when the generation is new. It stands behind the counters in the memory
//! of the generation, so whoever inherits that has it. Invariant: how many there are follows from the configuration alone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};
use tidegate_engine::Words;

/// How many tables there are, and how large each is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableSizes {
    pub(crate) count: usize,
    pub(crate) words: usize,
}

/// The tables of a generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    list: Arc<[Arc<dyn Words>]>,
    sizes: TableSizes,
}

impl TableSizes {
    /// Words of all of them.
    pub(crate) const fn total(self) -> usize {
        self.count * self.words
    }
}

impl Tables {
    /// Those that stand in a memory from `start` on.
    pub(crate) fn behind(memory: &Arc<dyn Words>, start: usize, sizes: TableSizes) -> Self {
        let table = |number| -> Arc<dyn Words> {
            let at = start + number * sizes.words;
            Arc::new(Part { memory: Arc::clone(memory), range: at..at + sizes.words })
        };
        Self { list: (0..sizes.count).map(table).collect(), sizes }
    }

    /// Those of one process.
    pub(crate) fn on_heap(sizes: TableSizes) -> Self {
        let words: Box<[AtomicU64]> = (0..sizes.total()).map(|_| AtomicU64::new(0)).collect();
        let memory: Arc<dyn Words> = Arc::new(words);
        Self::behind(&memory, 0, sizes)
    }

    /// The table of this number.
    #[cfg_attr(not(any(feature = "full", test)), expect(dead_code, reason = "only sites have tables"))]
    pub(crate) fn get(&self, number: usize) -> Option<Arc<dyn Words>> {
        self.list.get(number).cloned()
    }

    pub(crate) const fn sizes(&self) -> TableSizes {
        self.sizes
    }
}

/// A part of a memory, which has it.
#[derive(Debug)]
struct Part {
    memory: Arc<dyn Words>,
    range: Range<usize>,
}

impl Words for Part {
    fn words(&self) -> &[AtomicU64] {
        &self.memory.words()[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn tables_stand_behind_one_another() {
        let words: Box<[AtomicU64]> = (0..10).map(AtomicU64::new).collect();
        let memory: Arc<dyn Words> = Arc::new(words);
        let tables = Tables::behind(&memory, 4, TableSizes { count: 2, words: 3 });
        let first = |number: usize| tables.get(number).map(|table| table.words()[0].load(Ordering::Relaxed));
        assert_eq!((first(0), first(1), first(2)), (Some(4), Some(7), None));
        assert_eq!(tables.get(1).unwrap().words().len(), 3);
        assert!(Tables::on_heap(TableSizes::default()).get(0).is_none());
    }
}
