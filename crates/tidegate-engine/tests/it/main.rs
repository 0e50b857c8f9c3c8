//! The engine with real sockets: a service that does what its peers tell it, and clients that never wait for ever.

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod files;
#[cfg(test)]
mod handles;
#[cfg(test)]
mod input;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod output;
#[cfg(test)]
mod panics;
#[cfg(test)]
mod retiring;
#[cfg(test)]
mod support;
#[cfg(test)]
mod suspend;
#[cfg(test)]
mod time;
