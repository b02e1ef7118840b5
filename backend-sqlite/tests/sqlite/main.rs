//! What is SQLite's alone; what every backend promises is in `leasehold-conformance`.

mod basics;
