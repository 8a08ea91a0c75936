//! tus 1.0.0, over sockets: a file an extension. The names begin with the part of the protocol that they are about.

mod checksum;
mod concatenation;
mod core;
mod creation;
mod head;
mod kit;
mod termination;
