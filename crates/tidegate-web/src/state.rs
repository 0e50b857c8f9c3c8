//! `States`: what a program gives all its handlers.

use std::any::Any;
use std::fmt;

/// At most one value of a type.
pub(crate) struct States {
    values: Vec<Box<dyn Any + Send + Sync>>,
}

impl States {
    pub(crate) const fn new() -> Self {
        Self { values: Vec::new() }
    }

    /// Takes a value, in place of one of the same type.
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.values.retain(|known| !known.is::<T>());
        self.values.push(Box::new(value));
    }

    pub(crate) fn find<T: 'static>(&self) -> Option<&T> {
        self.values.iter().find_map(|value| value.downcast_ref())
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states", self.values.len())
    }
}
