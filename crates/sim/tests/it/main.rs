//! Behaviour of the world as its observers see it.

mod convergence;
mod world;
