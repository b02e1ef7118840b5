//! F2 and F6: the small records that a fleet shares, and the schedules that are kept in them.

use std::time::Duration;

use leasehold_core::backend::{
    DeleteRegister, Prune, Pruned, PutRegister, Register, RegisterPage, Registers, Space,
};
use leasehold_core::{ErrorKind, JobId, Payload, RegisterName, State, Timestamp, UniqueScope, VersionId};
use strum::VariantArray;

use super::producing::corpus;
use crate::bench::{Bench, SUCCEED, in_time, job, millis, schedule_name, secs, text, unique_key};
use crate::breach::{Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// A register is written only by who has read its latest version.
    [F6] writes_a_register_only_by_its_version;
    /// The same write of a register again changes nothing, and is no conflict.
    [F6, E2] writes_a_repeated_register_once;
    /// A register comes back byte for byte.
    [F6, P6] returns_registers_byte_for_byte;
    /// Registers are shown by name, page by page, and one by its name.
    [F6, F4] shows_registers_by_name;
    /// The same name in another space is another register.
    [F6] keeps_registers_of_a_name_apart_by_space;
    /// Only registers are due whose moment has come, by the store's clock.
    [F6, F2, C8] shows_the_registers_that_are_due;
    /// Whoever reads registers is told the store's hour, whether there are any or not.
    [F6, C8] tells_the_hour_with_registers;
    /// A register that was deleted is gone, and one made anew under its name has a version of its own.
    [F6] deletes_a_register;
    /// A register is deleted as it was read, and not if somebody wrote it since, also where it is a later one of its name.
    [F6, C2] deletes_a_register_as_it_was_read;
    /// A register is pruned once it has expired, and not a moment before; who writes it anew in time keeps it.
    [F6, F5, C8] prunes_registers_that_expired;
    /// Registers are pruned a bounded batch at a time.
    [F6, F5] prunes_registers_in_bounded_batches;
    /// Whatever number of schedulers fire a tick, it is one job.
    [F2, P2] makes_one_job_of_a_tick;
    /// Of schedulers that race to move a schedule on, one does so at each tick.
    [F2, F6] lets_one_of_racing_schedulers_move_a_schedule;
}

fn write(name: &RegisterName, body: Payload, expected: Option<VersionId>) -> PutRegister {
    PutRegister::new(Space::Schedule, name.clone(), body, expected)
}

async fn send(t: &Bench, request: PutRegister) -> leasehold_core::Result<VersionId> {
    let version = request.version;
    t.backend().put_register(in_time(0), request).await?;
    Ok(version)
}

async fn put(
    t: &Bench,
    name: &RegisterName,
    body: Payload,
    next: Option<Timestamp>,
    expected: Option<VersionId>,
) -> leasehold_core::Result<VersionId> {
    send(t, PutRegister { next, ..write(name, body, expected) }).await
}

async fn read(t: &Bench, request: Registers) -> Done<RegisterPage> {
    Ok(t.backend().registers(in_time(0), request).await?)
}

async fn schedules(t: &Bench, due: bool, after: Option<RegisterName>, limit: usize) -> Done<Vec<Register>> {
    Ok(read(t, Registers { due, after, ..Registers::all(Space::Schedule, limit) }).await?.registers)
}

async fn names(t: &Bench, due: bool) -> Done<Vec<String>> {
    Ok(schedules(t, due, None, 100).await?.into_iter().map(|s| s.name.to_string()).collect())
}

async fn writes_a_register_only_by_its_version(t: Bench) -> Kept {
    let name = schedule_name("nightly");
    let first = put(&t, &name, text("1"), None, None).await?;
    let next = Some(t.hour().plus(secs(9)));
    let second = put(&t, &name, text("2"), next, Some(first)).await?;
    for stale in [None, Some(first), Some(VersionId::generate())] {
        let refused = put(&t, &name, text("3"), None, stale).await.map_err(|error| error.kind());
        must_eq!(refused, Err(ErrorKind::Conflict), "writing with the version {stale:?}");
    }
    let wanted = PutRegister { next, version: second, ..write(&name, text("2"), None) };
    let wanted = Register::from(wanted);
    must_eq!(schedules(&t.another().await?, false, None, 9).await?, [wanted]);
    let unknown =
        put(&t, &schedule_name("other"), text(""), None, Some(first)).await.map_err(|error| error.kind());
    must_eq!(unknown, Err(ErrorKind::Conflict));
    Ok(())
}

async fn writes_a_repeated_register_once(t: Bench) -> Kept {
    let (name, version) = (schedule_name("nightly"), VersionId::generate());
    let request = PutRegister { version, ..write(&name, text("1"), None) };
    for client in t.several(3).await? {
        client.backend().put_register(in_time(0), request.clone()).await?;
    }
    must_eq!(schedules(&t, false, None, 9).await?.first().map(|there| there.version), Some(version));
    let second = put(&t, &name, text("2"), None, Some(version)).await?;
    let late = t.backend().put_register(in_time(0), request).await.map_err(|error| error.kind());
    must_eq!(late, Err(ErrorKind::Conflict), "repeating a write that was written over");
    must_eq!(schedules(&t, false, None, 9).await?.first().map(|there| there.version), Some(second));
    Ok(())
}

async fn returns_registers_byte_for_byte(t: Bench) -> Kept {
    let name = schedule_name("$odd {name}");
    let mut version = None;
    for body in corpus() {
        version = Some(put(&t, &name, body.clone(), Some(t.hour()), version).await?);
        let found = schedules(&t, true, None, 9).await?;
        must_eq!(found.len(), 1);
        must!(found[0].body == body, "a register's body of {} bytes was altered", body.len());
        must_eq!((&found[0].name, Some(found[0].version)), (&name, version));
    }
    Ok(())
}

async fn shows_registers_by_name(t: Bench) -> Kept {
    for name in ["m", "B", "a", "ä", "z"] {
        put(&t, &schedule_name(name), text(""), None, None).await?;
    }
    must_eq!(names(&t, false).await?, ["B", "a", "m", "z", "ä"]);
    let page = schedules(&t, false, Some(schedule_name("a")), 2).await?;
    must_eq!(page.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["m", "z"]);
    must_eq!(schedules(&t, false, Some(schedule_name("ä")), 2).await?, []);
    let named = |name| Registers::named(Space::Schedule, schedule_name(name));
    let one = read(&t, named("m")).await?.registers;
    must_eq!(one.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["m"]);
    must_eq!(read(&t, named("b")).await?.registers, []);
    Ok(())
}

async fn keeps_registers_of_a_name_apart_by_space(t: Bench) -> Kept {
    let name = schedule_name("the same: $name");
    let (mut wanted, due) = (Vec::new(), Some(t.hour()));
    for space in Space::VARIANTS {
        let body = text(space.as_str());
        let request = PutRegister { next: due, ..PutRegister::new(*space, name.clone(), body, None) };
        wanted.push(Register::from(request.clone()));
        send(&t, request).await?;
    }
    for (space, there) in Space::VARIANTS.iter().zip(&wanted) {
        let ways = [
            Registers::all(*space, 9),
            Registers::due(*space, 9),
            Registers::named(*space, name.clone()),
            Registers { after: Some(schedule_name("a")), ..Registers::all(*space, 9) },
        ];
        for request in ways {
            let shown = read(&t, request.clone()).await?.registers;
            must_eq!(shown.as_slice(), std::slice::from_ref(there), "by {request:?}");
        }
    }
    let delete = DeleteRegister::named(Space::Lock, name);
    must_eq!(t.backend().delete_register(in_time(0), delete).await?, true);
    for (space, there) in Space::VARIANTS.iter().zip(wanted) {
        let left = read(&t, Registers::all(*space, 9)).await?.registers;
        must_eq!(left, if *space == Space::Lock { vec![] } else { vec![there] }, "in {space}");
    }
    Ok(())
}

async fn shows_the_registers_that_are_due(t: Bench) -> Kept {
    let soon = t.hour().plus(secs(10));
    put(&t, &schedule_name("past"), text(""), Some(t.hour().minus(secs(1))), None).await?;
    put(&t, &schedule_name("soon"), text(""), Some(soon), None).await?;
    put(&t, &schedule_name("paused"), text(""), None, None).await?;
    must_eq!(names(&t, true).await?, ["past"]);
    t.advance(millis(9_999));
    must_eq!(names(&t, true).await?, ["past"]);
    t.advance(millis(1));
    must_eq!(names(&t, true).await?, ["past", "soon"]);
    Ok(())
}

async fn tells_the_hour_with_registers(t: Bench) -> Kept {
    let ways = [
        Registers::all(Space::Rate, 9),
        Registers::due(Space::Rate, 9),
        Registers::named(Space::Rate, schedule_name("key")),
    ];
    for request in &ways {
        must_eq!(read(&t, request.clone()).await?.hour, t.hour(), "with none, by {request:?}");
    }
    let request = PutRegister::new(Space::Rate, schedule_name("key"), text(""), None);
    send(&t, PutRegister { next: Some(t.hour()), ..request }).await?;
    t.advance(millis(1_234));
    for request in ways {
        let RegisterPage { hour, registers } = read(&t.another().await?, request.clone()).await?;
        must_eq!((hour, registers.len()), (t.hour(), 1), "by {request:?}");
    }
    Ok(())
}

async fn deletes_a_register(t: Bench) -> Kept {
    let name = schedule_name("nightly");
    let delete = async || {
        t.backend().delete_register(in_time(0), DeleteRegister::named(Space::Schedule, name.clone())).await
    };
    must_eq!(delete().await?, false);
    let first = put(&t, &name, text("1"), None, None).await?;
    must_eq!(delete().await?, true);
    must_eq!(delete().await?, false);
    must_eq!(names(&t, false).await?.len(), 0);
    put(&t, &name, text("2"), None, None).await?;
    let stale = put(&t, &name, text("3"), None, Some(first)).await.map_err(|error| error.kind());
    must_eq!(stale, Err(ErrorKind::Conflict), "writing with the version of a deleted register");
    Ok(())
}

async fn deletes_a_register_as_it_was_read(t: Bench) -> Kept {
    let name = schedule_name("nightly");
    let delete = async |expected: VersionId| {
        let request = DeleteRegister::named(Space::Schedule, name.clone());
        let request = DeleteRegister { expected: Some(expected), ..request };
        t.backend().delete_register(in_time(0), request).await
    };
    let first = put(&t, &name, text("1"), None, None).await?;
    let second = put(&t, &name, text("2"), None, Some(first)).await?;
    must_eq!(delete(first).await?, false, "by a version that was written over");
    must_eq!(names(&t, false).await?.len(), 1, "after that");
    must_eq!(delete(second).await?, true, "by the version that is there");
    must_eq!(delete(second).await?, false, "by the same again");
    must_eq!(names(&t, false).await?.len(), 0, "in the end");
    let anew = put(&t, &name, text("3"), None, None).await?;
    must_eq!(delete(second).await?, false, "by the version of an earlier life");
    must_eq!(delete(anew).await?, true, "by that of the present one");
    Ok(())
}

async fn prune(t: &Bench, limit: usize) -> Done<Pruned> {
    Ok(t.backend().prune(in_time(0), Prune { limit, workers_after: Duration::from_hours(24) }).await?)
}

async fn prunes_registers_that_expired(t: Bench) -> Kept {
    let expiring = |name: &str, after: u64, expected| PutRegister {
        expires: Some(t.hour().plus(secs(after))),
        ..PutRegister::new(Space::Rate, schedule_name(name), text("x"), expected)
    };
    let left = async || -> Done<Vec<String>> {
        let there = read(&t, Registers::all(Space::Rate, 9)).await?.registers;
        Ok(there.iter().map(|register| register.name.to_string()).collect())
    };
    let gone = send(&t, expiring("gone", 10, None)).await?;
    let kept = send(&t, expiring("kept", 10, None)).await?;
    let freed = send(&t, expiring("freed", 10, None)).await?;
    send(&t, write(&schedule_name("nightly"), text("x"), None)).await?;
    t.advance(secs(10));
    must_eq!(prune(&t, 9).await?, Pruned::default(), "at the last moment");
    must_eq!(left().await?, ["freed", "gone", "kept"]);
    send(&t, expiring("kept", 10, Some(kept))).await?;
    send(&t, PutRegister { expires: None, ..expiring("freed", 0, Some(freed)) }).await?;
    t.advance(millis(1));
    must_eq!(left().await?, ["freed", "gone", "kept"], "it is shown until it is pruned");
    must_eq!(prune(&t, 9).await?, Pruned { registers: 1, ..Pruned::default() });
    must_eq!(left().await?, ["freed", "kept"]);
    let late = send(&t, expiring("gone", 10, Some(gone))).await.map_err(|error| error.kind());
    must_eq!(late, Err(ErrorKind::Conflict), "writing over the version of a pruned register");
    send(&t, expiring("gone", 10, None)).await?;
    t.advance(secs(3_600));
    must_eq!(prune(&t, 9).await?, Pruned { registers: 2, ..Pruned::default() });
    must_eq!(left().await?, ["freed"]);
    must_eq!(schedules(&t, false, None, 9).await?.len(), 1, "a register that never expires");
    Ok(())
}

async fn prunes_registers_in_bounded_batches(t: Bench) -> Kept {
    for i in 0..5 {
        let request = PutRegister::new(Space::Lock, schedule_name(&format!("n{i}")), text(""), None);
        send(&t, PutRegister { expires: Some(t.hour()), ..request }).await?;
    }
    t.advance(millis(1));
    let (first, second) = (prune(&t, 3).await?, prune(&t, 3).await?);
    must_eq!((first.registers, first.more), (3, true));
    must_eq!((second.registers, second.more), (2, false));
    must_eq!(read(&t, Registers::all(Space::Lock, 9)).await?.registers, []);
    Ok(())
}

async fn makes_one_job_of_a_tick(t: Bench) -> Kept {
    let (name, tick) = (schedule_name("nightly"), t.hour());
    let id = JobId::of_tick(&name, tick);
    let mut created = 0;
    for client in t.several(4).await? {
        let tick = job().id(id).run_at(tick).unique(unique_key("tick"), UniqueScope::UntilFinished);
        created += usize::from(client.enqueue([tick]).await?[0].is_created());
    }
    must_eq!(created, 1);
    t.finish(&t.take().await?, SUCCEED).await?;
    t.enqueue([job().id(id)]).await?;
    must_eq!(t.state(id).await?, State::Succeeded);
    must_eq!(t.counts().await?.enqueued, 1);
    Ok(())
}

async fn lets_one_of_racing_schedulers_move_a_schedule(t: Bench) -> Kept {
    const TICKS: u64 = 20;
    let name = schedule_name("every second");
    put(&t, &name, text(""), Some(t.hour()), None).await?;
    let mut schedulers = Vec::new();
    for client in t.several(5).await? {
        let name = name.clone();
        schedulers.push(tokio::spawn(async move {
            let mut moved = 0;
            loop {
                let gone = || Trouble::Unmet("the schedule or its next tick is gone".into());
                let found = schedules(&client, false, None, 1).await?.pop().ok_or_else(gone)?;
                let tick = found.next.ok_or_else(gone)?;
                if tick >= client.hour().plus(secs(TICKS)) {
                    return Ok::<u64, Trouble>(moved);
                }
                client.enqueue([job().id(JobId::of_tick(&name, tick))]).await?;
                let next = Some(tick.plus(secs(1)));
                match put(&client, &name, found.body, next, Some(found.version)).await {
                    Ok(_) => moved += 1,
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }));
    }
    let mut moved = 0;
    for scheduler in schedulers {
        moved += scheduler.await??;
    }
    must_eq!(moved, TICKS);
    must_eq!(t.counts().await?.enqueued, TICKS);
    Ok(())
}
