//! Schedulers in several processes, which die and sleep where they should not.

use std::collections::BTreeSet;

use super::{Crew, Hour, Order, SCHEDULER_POINTS, Said, Skew};
use crate::bench::Bench;
use crate::breach::{Breach, Done, Kept};

/// How often a scheduler looks for schedules that are due in a round.
const LOOKS: u64 = 4;
/// How many rounds one sleeps.
const SLEEP: usize = 2;
/// How far off wrong clocks are, in milliseconds.
const HOUR: i64 = 3_600_000;

/// Three schedulers, of which one is an hour fast and one is slow. Who dies is replaced by one with the same clock.
pub(crate) struct Schedulers {
    pub(crate) crew: Crew,
    clocks: [Option<Skew>; 3],
    seats: [Option<usize>; 3],
    /// Those that have not done yet what they were told.
    busy: BTreeSet<usize>,
    /// Who sleeps, and for how many rounds more.
    asleep: Option<(usize, usize)>,
    killed: usize,
    died: usize,
    slept: usize,
}

impl Schedulers {
    /// A store without any yet.
    pub(crate) async fn gather(t: &Bench) -> Kept<Self> {
        let skewed = |millis| Skew::new(millis).map(Some).map_err(|why| Breach::new(why.to_string()));
        Ok(Self {
            crew: Crew::gather(t, Hour::Manual).await?,
            clocks: [skewed(HOUR)?, skewed(-HOUR)?, None],
            seats: [None; 3],
            busy: BTreeSet::new(),
            asleep: None,
            killed: 0,
            died: 0,
            slept: 0,
        })
    }

    /// Whether each kind of fault came about.
    pub(crate) fn had_all_faults(&self) -> bool {
        self.killed.min(self.died).min(self.slept) > 0
    }

    /// The faults that came about.
    pub(crate) fn faults(&self) -> String {
        let Self { killed, died, slept, .. } = self;
        format!(
            "{killed} schedulers killed at any moment, {died} ended and {slept} frozen between two writes"
        )
    }

    /// Lets all who are awake look for what is due, while the hour goes on; and one of them is killed, maybe.
    pub(crate) async fn round(&mut self) -> Kept {
        self.take_seats(true).await?;
        let idle: Vec<usize> = self.seated().filter(|number| !self.busy.contains(number)).collect();
        for number in &idle {
            self.crew.tell(*number, &Order::Fire(LOOKS))?;
            self.busy.insert(*number);
        }
        let mut victim = fastrand::choice(&idle).filter(|_| fastrand::u8(..3) == 0).copied();
        while self.is_somebody_at_work() {
            let (who, said) = self.crew.hear().await?;
            match said {
                Said::Count(_) if victim == Some(who) => {
                    // At whatever it does at this moment.
                    self.crew.kill(who)?;
                    self.killed += 1;
                    self.leave(who);
                    victim = None;
                }
                Said::Count(_) => self.crew.pass(u64::from(fastrand::bool())).await?,
                Said::Step => self.fell_asleep(who)?,
                Said::Done => drop(self.busy.remove(&who)),
                Said::Gone if self.seated().any(|number| number == who) => {
                    self.crew.bury(who)?;
                    self.died += 1;
                    self.leave(who);
                }
                Said::Gone => {}
                other => return Err(Breach::new(format!("scheduler {who} said {other:?}"))),
            }
        }
        self.crew.pass(fastrand::u64(..3)).await?;
        match self.asleep {
            Some((number, 0)) => self.wake(number)?,
            Some((number, rounds)) => self.asleep = Some((number, rounds - 1)),
            None => {}
        }
        Ok(())
    }

    /// Lets everybody end what they are at, and sends them home.
    pub(crate) async fn come_to_rest(&mut self) -> Kept {
        if let Some((number, _)) = self.asleep {
            self.wake(number)?;
        }
        self.hear_out().await?;
        for number in self.seated().collect::<Vec<_>>() {
            self.crew.kill(number)?;
            self.leave(number);
        }
        Ok(())
    }

    /// Takes all seats anew, by schedulers that go on, and lets all look at once.
    pub(crate) async fn come_back(&mut self) -> Kept {
        self.take_seats(false).await?;
        for number in self.seated().collect::<Vec<_>>() {
            self.crew.tell(number, &Order::Fire(LOOKS))?;
            self.busy.insert(number);
        }
        self.hear_out().await
    }

    /// Hears who is at work until all are done.
    async fn hear_out(&mut self) -> Kept {
        while self.is_somebody_at_work() {
            let (who, said) = self.crew.hear().await?;
            match said {
                Said::Done => drop(self.busy.remove(&who)),
                Said::Step => {
                    self.fell_asleep(who)?;
                    self.wake(who)?;
                }
                Said::Gone if self.seated().any(|number| number == who) => {
                    self.crew.bury(who)?;
                    self.leave(who);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts who is missing; some will die or fall asleep between two writes if they `may`.
    async fn take_seats(&mut self, may: bool) -> Kept {
        for seat in 0..self.seats.len() {
            if self.seats[seat].is_some() {
                continue;
            }
            let environment = self.clocks[seat].as_ref().map(Skew::environment).unwrap_or_default();
            let number = self.crew.start(&environment).await?;
            self.seats[seat] = Some(number);
            let point = fastrand::choice(SCHEDULER_POINTS).map(|(point, _)| (*point).to_owned());
            let order = match (fastrand::u8(..3), point) {
                (0, Some(point)) if may => Order::DieAt(point),
                (1, Some(point)) if may => Order::SleepAt(point),
                _ => continue,
            };
            self.crew.ask(number, &order).await?;
        }
        Ok(())
    }

    fn seated(&self) -> impl Iterator<Item = usize> + '_ {
        self.seats.iter().copied().flatten()
    }

    fn is_somebody_at_work(&self) -> bool {
        let sleeper = self.asleep.map(|(number, _)| number);
        self.busy.iter().any(|number| Some(*number) != sleeper)
    }

    /// One sleeps at a time.
    fn fell_asleep(&mut self, number: usize) -> Done {
        self.crew.wait_until_stopped(number)?;
        self.slept += 1;
        if let Some((other, _)) = self.asleep {
            self.wake(other)?;
        }
        self.asleep = Some((number, SLEEP));
        Ok(())
    }

    fn wake(&mut self, number: usize) -> Done {
        self.asleep = None;
        self.crew.thaw(number)
    }

    fn leave(&mut self, number: usize) {
        self.seats.iter_mut().filter(|seat| **seat == Some(number)).for_each(|seat| *seat = None);
        self.busy.remove(&number);
        if self.asleep.is_some_and(|(asleep, _)| asleep == number) {
            self.asleep = None;
        }
    }
}
