//! The law, judged on the store in memory.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, Harness, Place};
use leasehold_core::Backend;
use leasehold_memory::Memory;

/// The stores by place: opening one again is cloning it.
#[derive(Default)]
struct InMemory(Mutex<HashMap<String, Memory>>);

#[async_trait]
impl Harness for InMemory {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        let mut stores = self.0.lock().map_err(|_| CannotRun::missing("the map of stores"))?;
        let make = || place.clock.clone().map_or_else(Memory::new, Memory::on_clock);
        Ok(Arc::new(stores.entry(place.name.clone()).or_insert_with(make).clone()))
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(InMemory::default())
}
