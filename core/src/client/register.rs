use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::store::Store;
use super::wake::jittered;
use crate::backend::{PutRegister, Register, RegisterPage, Registers, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Payload;
use crate::name::RegisterName;
use crate::time::{Deadline, Timestamp};

/// How long the first one to be overtaken waits before it reads again.
const AGAIN: Duration = Duration::from_millis(1);
/// The longest such wait.
const LONGEST: Duration = Duration::from_millis(100);

/// One register whose body is a `T`, which is read, changed and written over what was read (clause F6).
#[derive(Debug, Clone)]
pub(super) struct Shared<T> {
    store: Store,
    space: Space,
    name: RegisterName,
    body: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Shared<T> {
    pub(super) fn new(store: &Store, space: Space, name: RegisterName) -> Self {
        Self { store: store.clone(), space, name, body: PhantomData }
    }

    pub(super) fn name(&self) -> &RegisterName {
        &self.name
    }

    /// Changes it as `change` decides of what is there and of the store's hour: to what is to be written, until when it
    /// is to be kept, and what to answer. Decides anew when somebody else was quicker. Writes nothing where `change`
    /// answers an error.
    pub(super) async fn change<A, E>(
        &self,
        change: impl FnMut(Option<T>, Timestamp) -> Result<(Timestamp, T, A), E>,
    ) -> Result<Result<A, E>> {
        Ok(self.change_timed(self.deadline(), change).await?.1)
    }

    /// The deadline of a change that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        self.store.deadline()
    }

    /// The same, by this deadline; and tells a moment, by this process's clock, before that at which the hour was told.
    pub(super) async fn change_timed<A, E>(
        &self,
        deadline: Deadline,
        mut change: impl FnMut(Option<T>, Timestamp) -> Result<(Timestamp, T, A), E>,
    ) -> Result<(Instant, Result<A, E>)> {
        let mut overtaken = Overtaken::by(deadline);
        loop {
            let began = Instant::now();
            let named = Registers::named(self.space, self.name.clone());
            let RegisterPage { hour, registers } = self.store.backend().registers(deadline, named).await?;
            let there = registers.into_iter().next();
            let body = there.as_ref().map(Register::said).transpose()?;
            let (expires, body, answer) = match change(body, hour) {
                Ok(changed) => changed,
                Err(refused) => return Ok((began, Err(refused))),
            };
            let expected = there.map(|register| register.version);
            let request = PutRegister::new(self.space, self.name.clone(), Payload::json(&body)?, expected);
            let request = PutRegister { expires: Some(expires), ..request };
            match self.store.backend().put_register(deadline, request).await {
                Ok(()) => return Ok((began, Ok(answer))),
                Err(error) => overtaken.or(error).await?,
            }
        }
    }
}

/// Waits between two tries of somebody who reads, decides and writes over what was read, while others are quicker.
pub(super) struct Overtaken {
    deadline: Deadline,
    wait: Duration,
}

impl Overtaken {
    /// Until this deadline.
    pub(super) fn by(deadline: Deadline) -> Self {
        Self { deadline, wait: AGAIN }
    }

    /// Waits a little longer each time if the write failed because somebody else was quicker.
    ///
    /// # Errors
    /// What it failed by, if it is something else or the deadline has passed.
    pub(super) async fn or(&mut self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Conflict || self.deadline.has_passed() {
            return Err(error);
        }
        tokio::time::sleep(jittered(self.wait).mul_f64(fastrand::f64())).await;
        self.wait = (self.wait * 2).min(LONGEST);
        Ok(())
    }
}

impl Register {
    /// What its body says.
    pub(crate) fn said<T: DeserializeOwned>(&self) -> Result<T> {
        let why = |error: Error| {
            Error::corrupt(format!("the {} {:?} cannot be read: {error}", self.space, self.name))
        };
        self.body.parse().map_err(why)
    }
}
