//! SPDY/3.1 as kubectl speaks it: frames (`frame`), compressed header blocks (`headers`), streams over a connection (`connection`).

pub mod connection;
pub mod frame;
pub mod headers;

#[cfg(test)]
mod tests;
