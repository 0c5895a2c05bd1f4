//! The runner from the command line to the exit status, with scripts in the place of other programs.

mod demo;
mod install;
mod policies;
mod stand_in;
