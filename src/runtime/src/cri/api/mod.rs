//! CRI v1 on the wire: the messages and fields that this client uses, by their numbers in the published protocol. Unknown fields are skipped.

pub mod container;
pub mod image;
pub mod node;
pub mod sandbox;
pub mod stats;
pub mod stream;

/// A number that may be absent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Int64Value {
    /// It.
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// A count that may be absent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct UInt64Value {
    /// It.
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

/// A message without fields, as many answers are.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Empty {}

/// An answer of which nothing is read.
pub type Done = Empty;
