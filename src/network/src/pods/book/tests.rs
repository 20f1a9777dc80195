//! Cases of the book.
