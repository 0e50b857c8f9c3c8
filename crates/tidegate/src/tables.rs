//! `Tables`: memory that the loops of a generation have in common besides their counters.
//!
//! Each has the same number of words, which are zero when the generation is new; behind them stands the table of the addresses
//! that have connections. All stand behind the counters in the memory of the generation, so whoever inherits that has them.
//! Invariant: how many there are follows from the configuration alone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};
use tidegate_engine::{AddressTable, Words};

/// How many tables there are, and how large each is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableSizes {
    pub(crate) count: usize,
    pub(crate) words: usize,
    /// Of the table of addresses: processes that count, and places for each. A version without it says nothing of it.
    #[serde(default)]
    pub(crate) address_seats: usize,
    #[serde(default)]
    pub(crate) address_places: usize,
}

/// The tables of a generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    list: Arc<[Arc<dyn Words>]>,
    addresses: Option<AddressTable>,
    sizes: TableSizes,
}

impl TableSizes {
    /// With a table of the addresses that so many processes serve, each of which has so many connections at the most.
    pub(crate) const fn with_addresses(self, seats: usize, connections: usize) -> Self {
        Self { address_seats: seats, address_places: AddressTable::places_for(connections), ..self }
    }

    /// Words of all of them.
    pub(crate) const fn total(self) -> usize {
        self.count * self.words + self.of_addresses()
    }

    const fn of_addresses(self) -> usize {
        AddressTable::words_needed(self.address_seats, self.address_places)
    }
}

impl Tables {
    /// Those that stand in a memory from `start` on.
    pub(crate) fn behind(memory: &Arc<dyn Words>, start: usize, sizes: TableSizes) -> Self {
        let table = |number| -> Arc<dyn Words> {
            let at = start + number * sizes.words;
            Arc::new(Part { memory: Arc::clone(memory), range: at..at + sizes.words })
        };
        let at = start + sizes.count * sizes.words;
        let range = at..at + sizes.of_addresses();
        let part = || Arc::new(Part { memory: Arc::clone(memory), range });
        let addresses = (sizes.address_seats > 0).then(part);
        let addresses =
            addresses.and_then(|part| AddressTable::new(part, sizes.address_seats, sizes.address_places));
        Self { list: (0..sizes.count).map(table).collect(), addresses, sizes }
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

    /// The connections of each address with each process of the generation, unless there is one process alone.
    pub(crate) const fn addresses(&self) -> Option<&AddressTable> {
        self.addresses.as_ref()
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
        let sizes = TableSizes::default();
        let tables = Tables::behind(&memory, 4, TableSizes { count: 2, words: 3, ..sizes });
        let first = |number: usize| tables.get(number).map(|table| table.words()[0].load(Ordering::Relaxed));
        assert_eq!((first(0), first(1), first(2)), (Some(4), Some(7), None));
        assert_eq!(tables.get(1).unwrap().words().len(), 3);
        assert!(tables.addresses().is_none());
        assert!(Tables::on_heap(TableSizes::default()).get(0).is_none());
    }

    #[test]
    fn the_table_of_addresses_stands_behind_the_others() {
        let sizes = TableSizes { count: 1, words: 3, ..TableSizes::default() }.with_addresses(2, 5);
        assert_eq!(sizes.total(), 3 + AddressTable::words_needed(2, 8));
        let tables = Tables::on_heap(sizes);
        assert!(tables.addresses().is_some());
        let read: TableSizes = serde_json::from_str(r#"{"count":1,"words":3}"#).unwrap();
        assert_eq!(read, TableSizes { address_seats: 0, address_places: 0, ..sizes });
    }
}
