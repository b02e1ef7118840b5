use std::ops::Bound;

use leasehold_core::backend::{DeleteRegister, PutRegister, Register, RegisterPage, Registers, Space};
use leasehold_core::{RegisterName, Result, Timestamp};

use crate::schema::Tables;

pub(crate) fn put(tables: &mut Tables, request: PutRegister) -> Result<()> {
    let key = (request.space, request.name.clone());
    if !request.replaces(tables.registers.get(&key).map(|register| register.version))? {
        return Ok(());
    }
    forget(tables, key.clone());
    let register = Register::from(request);
    if let Some(expires) = register.expires {
        tables.register_expiry.insert((expires, key.clone()));
    }
    tables.registers.insert(key, register);
    Ok(())
}

pub(crate) fn registers(tables: &Tables, now: Timestamp, request: &Registers) -> RegisterPage {
    let space = request.space;
    let from = match (&request.name, &request.after) {
        (Some(name), _) => Bound::Included((space, name.clone())),
        (None, Some(after)) => Bound::Excluded((space, after.clone())),
        (None, None) => Bound::Unbounded,
    };
    let after = tables.registers.range((from, Bound::Unbounded)).map(|(_, register)| register);
    let ours = after.skip_while(|register| register.space < space);
    let named = ours.take_while(|register| {
        register.space == space && request.name.as_ref().is_none_or(|name| *name == register.name)
    });
    let found = named.filter(|register| request.takes(register, now)).take(request.limit);
    RegisterPage { hour: now, registers: found.cloned().collect() }
}

pub(crate) fn delete(tables: &mut Tables, request: &DeleteRegister) -> bool {
    let key = (request.space, request.name.clone());
    tables.registers.get(&key).is_some_and(|register| request.takes(register.version)) && forget(tables, key)
}

/// Removes those that have expired, at most so many; answers how many, and whether there are more.
pub(crate) fn prune(tables: &mut Tables, now: Timestamp, limit: usize) -> (u64, bool) {
    let over = |tables: &Tables| tables.register_expiry.first().filter(|(at, _)| *at < now).cloned();
    let mut removed = 0;
    while (removed as usize) < limit
        && let Some((_, key)) = over(tables)
    {
        forget(tables, key);
        removed += 1;
    }
    (removed, over(tables).is_some())
}

fn forget(tables: &mut Tables, key: (Space, RegisterName)) -> bool {
    let Some(was) = tables.registers.remove(&key) else { return false };
    if let Some(expires) = was.expires {
        tables.register_expiry.remove(&(expires, key));
    }
    true
}
