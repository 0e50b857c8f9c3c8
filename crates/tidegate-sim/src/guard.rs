//! Panics as violations: of checks, and of the code under test.
//!
//! Invariant: what panics outside of a guarded call is told as ever, and what panics within is told once, by who guards.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// While a guarded call runs: what panicked last in it, and where.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_GUARDED: RefCell<bool> = const { RefCell::new(false) };
}

static HOOK: Once = Once::new();

/// Calls `run`; a panic is an error, with its place.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(install);
    IS_GUARDED.set(true);
    let ran = catch_unwind(AssertUnwindSafe(run));
    IS_GUARDED.set(false);
    ran.map_err(|panic| match CAUGHT.take() {
        Some(told) => told,
        None => panic_any(panic),
    })
}

fn install() {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        if IS_GUARDED.with_borrow(|is_guarded| *is_guarded) {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let text = panic.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("no message");
            CAUGHT.set(Some(format!("panicked at {place}: {text}")));
        } else {
            before(panic);
        }
    }));
}
