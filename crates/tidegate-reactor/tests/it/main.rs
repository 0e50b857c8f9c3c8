//! The reactor alone, on real sockets: no engine, no service.

#[cfg(test)]
mod connections;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod support;
