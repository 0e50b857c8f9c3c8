//! `Handler`: plain functions of extractors, whatever their number.
//!
//! A function may take the request by reference first, then up to six extractors, and answer anything that is
//! [`IntoResponse`]. The first extractor that fails answers instead of it.

use crate::{FromRequest, IntoResponse, Request, Response};

/// A function that answers requests. `M` tells functions of different arguments apart; nobody need name it.
pub trait Handler<M>: Send + Sync + 'static {
    /// Answers.
    fn call(&self, request: &Request<'_>) -> Response;
}

/// The mark of functions that take the request itself first.
#[derive(Debug)]
pub enum ByReference {}

macro_rules! handlers {
    ($(($($argument:ident $value:ident)*))*) => {$(
        impl<F, R, $($argument,)*> Handler<($($argument,)*)> for F
        where
            F: Fn($($argument,)*) -> R + Send + Sync + 'static,
            R: IntoResponse,
            $($argument: FromRequest,)*
        {
            fn call(&self, _request: &Request<'_>) -> Response {
                $(let $value = match $argument::from_request(_request) {
                    Ok(value) => value,
                    Err(refusal) => return refusal,
                };)*
                self($($value,)*).into_response()
            }
        }

        impl<F, R, $($argument,)*> Handler<(ByReference, $($argument,)*)> for F
        where
            F: Fn(&Request<'_>, $($argument,)*) -> R + Send + Sync + 'static,
            R: IntoResponse,
            $($argument: FromRequest,)*
        {
            fn call(&self, request: &Request<'_>) -> Response {
                $(let $value = match $argument::from_request(request) {
                    Ok(value) => value,
                    Err(refusal) => return refusal,
                };)*
                self(request, $($value,)*).into_response()
            }
        }
    )*};
}

handlers! { () (A a) (A a B b) (A a B b C c) (A a B b C c D d) (A a B b C c D d E e) (A a B b C c D d E e G g) }
