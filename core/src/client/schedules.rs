use std::collections::BTreeMap;

use super::register::Overtaken;
use super::store::Store;
use crate::backend::{DeleteRegister, Register, RegisterPage, Registers, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, VersionId};
use crate::layer::check;
use crate::name::RegisterName;
use crate::schedule::{Body, Run, Schedule, ScheduleRecord};
use crate::time::Timestamp;

/// Bytes that a schedule must leave for what is noted of its ticks.
const SPARE: usize = 32 * 1_024;

/// The schedules of a [`Store`]. They fire while somebody [fires](Self::fire) them.
#[derive(Debug, Clone)]
pub struct Schedules {
    pub(super) store: Store,
}

/// What a [declaration](Schedules::declare) did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Declared {
    /// Those that are new or have changed.
    pub written: Vec<RegisterName>,
    /// Those that were in the set and are no longer.
    pub removed: Vec<RegisterName>,
}

impl Store {
    /// Its schedules.
    pub fn schedules(&self) -> Schedules {
        Schedules { store: self.clone() }
    }
}

impl Schedules {
    /// Makes or changes a schedule. One that says the same already is left as it is, its next tick too; a new rule
    /// counts from now on.
    ///
    /// # Errors
    /// Those named at [`Store`].
    pub async fn put<N>(&self, name: N, schedule: Schedule) -> Result<ScheduleRecord>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        let name = name.try_into()?;
        // Refused here rather than at each tick.
        check::new_job(&schedule.job_of(&name, Timestamp::MAX)?, self.store.limits())?;
        self.change(&name, |there, hour| match there {
            None => Ok(Some(Body::new(schedule.clone(), hour))),
            Some(body) if body.schedule == schedule => Ok(None),
            Some(mut body) => {
                body.change(schedule.clone(), hour);
                Ok(Some(body))
            }
        })
        .await
    }

    /// The schedule of this name, if there is one.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if it cannot be read.
    pub async fn get<N>(&self, name: N) -> Result<Option<ScheduleRecord>>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        let page = self.read(Registers::named(Space::Schedule, name.try_into()?)).await?;
        page.registers.into_iter().next().map(ScheduleRecord::try_from).transpose()
    }

    /// A page of the schedules, by name; go on after the last one's. Those that cannot be read are left out.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn list(&self, after: Option<RegisterName>, limit: usize) -> Result<Vec<ScheduleRecord>> {
        let page = self.read(Registers { after, ..Registers::all(Space::Schedule, limit) }).await?;
        Ok(page.registers.into_iter().filter_map(|register| register.try_into().ok()).collect())
    }

    /// Removes a schedule; answers whether it was there. Its jobs stay.
    ///
    /// # Errors
    /// Only those named at [`Store`].
    pub async fn delete<N>(&self, name: N) -> Result<bool>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        let request = DeleteRegister::named(Space::Schedule, name.try_into()?);
        self.store.backend().delete_register(self.store.deadline(), request).await
    }

    /// Lets a schedule rest, or go on with the first tick from now; those in between are not missed.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name.
    pub async fn pause<N>(&self, name: N, paused: bool) -> Result<ScheduleRecord>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        let name = name.try_into()?;
        self.change(&name, |there, hour| {
            let mut body = there.ok_or_else(|| missing(&name))?;
            if body.schedule.paused == paused {
                return Ok(None);
            }
            body.schedule.paused = paused;
            body.begin(hour);
            Ok(Some(body))
        })
        .await
    }

    /// Moves a schedule to another store, as it is: with its next tick, its runs and its edits. Neither store misses a tick or
    /// fires one that the other has. Its jobs stay where they are. If this is cut off, or fails with
    /// [`Unknown`](ErrorKind::Unknown), the schedule is paused here, and maybe there already; the same call again brings it there
    /// as it was.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name; [`Conflict`](ErrorKind::Conflict) if the other store
    /// has one of this name, or this one is just firing: try again a moment later.
    pub async fn move_to<N>(&self, name: N, other: &Self) -> Result<ScheduleRecord>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        self.hand_over(name.try_into()?, other).await
    }

    async fn hand_over(&self, name: RegisterName, other: &Self) -> Result<ScheduleRecord> {
        let record = self.get(&name).await?.ok_or_else(|| missing(&name))?;
        if !record.firing.is_empty() {
            let why = format!("the schedule {name:?} is just firing; move it when it has");
            return Err(Error::new(ErrorKind::Conflict, why));
        }
        let taken = || {
            let why = format!("the other store has a schedule {name:?} already");
            Error::new(ErrorKind::Conflict, why)
        };
        let arrived = record.body.clone().arrived();
        match other.get(name.clone()).await? {
            // It got there, and whoever moved it was cut off before it had gone from here.
            Some(there) if record.body.is_moving() && there.schedule == arrived.schedule => {
                self.remove(name, record.version).await?;
                return Ok(there);
            }
            Some(_) => return Err(taken()),
            None => {}
        }
        // From here on nobody fires it here, unless somebody was quicker: then this is not written.
        let paused = self.write_paused(&record).await?;
        // One that is there by now may be this very one, which has fired since: so it goes on here only if somebody says so.
        let moved = other.change(&name, |there, _| match there {
            None => Ok(Some(arrived.clone())),
            Some(_) => Err(taken()),
        });
        let moved = moved.await?;
        self.remove(name, paused).await?;
        Ok(moved)
    }

    /// Removes a schedule that has moved. Whoever made one of this name anew meanwhile keeps it.
    async fn remove(&self, name: RegisterName, version: VersionId) -> Result<()> {
        let request =
            DeleteRegister { expected: Some(version), ..DeleteRegister::named(Space::Schedule, name) };
        self.store.backend().delete_register(self.store.deadline(), request).await.map(drop)
    }

    async fn write_paused(&self, record: &ScheduleRecord) -> Result<VersionId> {
        let mut body = record.body.clone();
        body.leave();
        let put =
            body.put(record.name.clone(), None, Some(record.version), self.store.limits().payload_bytes)?;
        let version = put.version;
        self.store.backend().put_register(self.store.deadline(), put).await?;
        Ok(version)
    }

    /// Fires a schedule's job now, whatever its rule, its pause and its other jobs say.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name.
    pub async fn run_now<N>(&self, name: N) -> Result<JobId>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        self.run(name.try_into()?).await
    }

    async fn run(&self, name: RegisterName) -> Result<JobId> {
        let there = self.get(&name).await?.ok_or_else(|| missing(&name))?;
        let job = there.schedule.job(&name, JobId::generate())?;
        let id = self.store.queue(&job.queue)?.enqueue(job).await?;
        let noted = self.change(&name, |there, _| {
            let mut body = there.ok_or_else(|| missing(&name))?;
            body.note(Run { job: id, tick: None, refused: None });
            Ok(Some(body))
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, schedule = %name, job = %id, "a run by hand could not be noted");
        }
        Ok(id)
    }

    /// Makes a set of schedules be these: writes those that are new or have changed, and removes those that were declared in
    /// the set before and are not among them. Those of other sets, and those by themselves, are left alone.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if a name is that of a schedule that is not in the set.
    pub async fn declare(&self, set: &str, schedules: BTreeMap<RegisterName, Schedule>) -> Result<Declared> {
        let there = self.all().await?;
        let taken = |record: &&ScheduleRecord| {
            schedules.contains_key(&record.name) && record.schedule.set.as_deref() != Some(set)
        };
        if let Some(record) = there.iter().find(taken) {
            let why = format!(
                "the schedule {:?} is not in the set {set:?}; give it another name, or delete that one",
                record.name
            );
            return Err(Error::new(ErrorKind::Conflict, why));
        }
        let mut declared = Declared::default();
        for record in &there {
            if record.schedule.set.as_deref() == Some(set) && !schedules.contains_key(&record.name) {
                self.delete(&record.name).await?;
                declared.removed.push(record.name.clone());
            }
        }
        for (name, schedule) in schedules {
            let was = there.iter().find(|record| record.name == name).map(|record| &record.schedule);
            // Somebody's pause outlives the next start of the program.
            let paused = was.map_or(schedule.paused, |was| was.paused);
            let schedule = Schedule { set: Some(set.to_owned()), paused, ..schedule };
            if was != Some(&schedule) {
                self.put(&name, schedule).await?;
                declared.written.push(name);
            }
        }
        Ok(declared)
    }

    async fn all(&self) -> Result<Vec<ScheduleRecord>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let limit = self.store.limits().page;
            let page =
                self.read(Registers { after, ..Registers::all(Space::Schedule, limit) }).await?.registers;
            after = page.last().map(|register| register.name.clone());
            let is_last = page.len() < limit;
            all.extend(page.into_iter().filter_map(|register| ScheduleRecord::try_from(register).ok()));
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn read(&self, request: Registers) -> Result<RegisterPage> {
        self.store.backend().registers(self.store.deadline(), request).await
    }

    /// Writes what `decide` makes of a schedule, if anything, however often others write it meanwhile.
    async fn change(
        &self,
        name: &RegisterName,
        decide: impl Fn(Option<Body>, Timestamp) -> Result<Option<Body>>,
    ) -> Result<ScheduleRecord> {
        let mut overtaken = Overtaken::by(self.store.deadline());
        loop {
            let page = self.read(Registers::named(Space::Schedule, name.clone())).await?;
            let there = page.registers.into_iter().next().map(ScheduleRecord::try_from).transpose()?;
            let Some(mut body) = decide(there.as_ref().map(|there| there.body.clone()), page.hour)? else {
                return there.ok_or_else(|| missing(name));
            };
            let due = if body.firing.is_empty() { body.next } else { Some(page.hour) };
            let expected = there.map(|there| there.version);
            let most = self.store.limits().payload_bytes.saturating_sub(SPARE);
            let put = body.put(name.clone(), due, expected, most)?;
            match self.store.backend().put_register(self.store.deadline(), put.clone()).await {
                Ok(()) => return Register::from(put).try_into(),
                Err(error) => overtaken.or(error).await?,
            }
        }
    }
}

fn missing(name: &RegisterName) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no schedule {name:?}"))
}
