//! Real containers: every test has a runtime, an image and cgroups of its own, and leaves nothing of them.

mod foreign;
mod house;
mod life;
mod limits;
mod root;
mod streams;
mod upgrade;
mod user_namespaces;
mod users;
