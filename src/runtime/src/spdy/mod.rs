//! SPDY/3.1 as kubectl speaks it: frames (`frame`), compressed header blocks (`headers`), streams over a
//! connection (`connection`), also as the side that opens them (`client`).

pub mod client;
pub mod connection;
pub mod frame;
pub mod headers;

#[cfg(test)]
mod tests;
