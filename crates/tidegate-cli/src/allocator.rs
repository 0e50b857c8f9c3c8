//! The allocator of the binary, chosen by cargo features.
//!
//! The one invariant: the library has none of its own, so that a program that uses it is free to choose. C code that is
//! linked in (SQLite) keeps using the C library's. With both features `jemalloc` is taken, so that all features together
//! build and `--features jemalloc` need not name what it replaces.

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `--version` says after the name of the program; `-V` has the first line alone.
#[cfg(feature = "jemalloc")]
pub(crate) const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nallocator: jemalloc");
/// What `--version` says after the name of the program; `-V` has the first line alone.
#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
pub(crate) const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nallocator: mimalloc");
/// What `--version` says after the name of the program; `-V` has the first line alone.
#[cfg(not(any(feature = "mimalloc", feature = "jemalloc")))]
pub(crate) const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nallocator: system");
