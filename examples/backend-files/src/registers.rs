use leasehold_core::backend::{DeleteRegister, PutRegister, RegisterPage, Registers};
use leasehold_core::{Result, Timestamp};

use crate::schema::{Change, Tables};

pub(crate) fn put(tables: &mut Tables, _: Timestamp, request: PutRegister) -> Result<()> {
    let there = tables.registers.get(&(request.space, request.name.clone()));
    if request.replaces(there.map(|register| register.version))? {
        tables.change(Change::Register(request.into()));
    }
    Ok(())
}

pub(crate) fn registers(tables: &mut Tables, now: Timestamp, request: Registers) -> Result<RegisterPage> {
    let asked = tables.registers.values().filter(|register| request.takes(register, now));
    Ok(RegisterPage { hour: now, registers: asked.take(request.limit).cloned().collect() })
}

pub(crate) fn delete(tables: &mut Tables, _: Timestamp, request: DeleteRegister) -> Result<bool> {
    let key = (request.space, request.name.clone());
    let there = tables.registers.get(&key).is_some_and(|register| request.takes(register.version));
    if there {
        tables.change(Change::Unregistered(key.0, key.1));
    }
    Ok(there)
}

/// Removes those that have expired, at most so many; answers how many, and whether there are more.
pub(crate) fn prune(tables: &mut Tables, now: Timestamp, limit: usize) -> (u64, bool) {
    let over = tables.registers.values().filter(|register| register.expires.is_some_and(|at| at < now));
    let mut over: Vec<_> = over.take(limit.saturating_add(1)).map(|it| (it.space, it.name.clone())).collect();
    let more = over.len() > limit;
    over.truncate(limit);
    let removed = over.len() as u64;
    over.into_iter().for_each(|(space, name)| tables.change(Change::Unregistered(space, name)));
    (removed, more)
}
