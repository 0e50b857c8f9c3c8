//! The engine with real sockets: a service that does what its peers tell it, and clients that never wait for ever.

#[cfg(test)]
#[macro_use]
mod models;
#[cfg(test)]
mod acceptor;
#[cfg(test)]
mod addresses;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod client;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod datagrams;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod files;
#[cfg(test)]
mod greeting;
#[cfg(test)]
mod handles;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod hangups;
#[cfg(test)]
mod input;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod latency;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod local;
#[cfg(test)]
mod named;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod output;
#[cfg(test)]
mod panics;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod receiving;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod retiring;
#[cfg(test)]
mod sent;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod suspend;
#[cfg(test)]
mod ties;
#[cfg(test)]
mod time;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod workers;
