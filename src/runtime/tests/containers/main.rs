//! Real containers: every test has a runtime, an image and cgroups of its own, and leaves nothing of them.

mod house;
mod life;
mod limits;
mod root;
mod streams;
mod upgrade;
mod users;
