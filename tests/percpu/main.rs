//! Per-CPU data on several CPUs in one thread: sparse ids, initial values, CPUs that come and go, zpcpu, counters, the header.

mod counters;
mod export;
mod machine;
mod start;
mod variables;
mod zpcpu;
