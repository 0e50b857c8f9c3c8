//! A fixed number of seeds of each scenario, and faults that have to be found.

#[cfg(test)]
mod command;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod spawning;
