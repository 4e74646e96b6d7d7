//! The root's and the leaves' protocol over a network that loses, delays and
//! stops, in simulated time: real gRPC, made-up sockets, scripted leaves.
//!
//! **Invariant:** an answer is complete and the same whatever the network does,
//! or it is an error; and what nobody waits for is not worked on for long.

mod connections;
mod corpus;
mod cuts;
mod deadlines;
mod hosts;
mod leaf;
mod log;
