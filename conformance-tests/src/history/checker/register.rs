//! One job as a register: what each call makes of it, and what it may answer.
//!
//! Time has no part in it: when a lease runs out or a job is due is judged elsewhere.

use leasehold_core::backend::Answer;
use leasehold_core::{LeaseToken, State, Timestamp};

use super::model::Kind;
use crate::history::event::{ChangeKind, Entry, Fate, Seen};

/// A job at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Register<'h> {
    place: Place,
    generation: u32,
    max_attempts: u32,
    /// The settlements so far.
    settled: Vec<Mark<'h>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Absent,
    Waiting {
        /// How many attempts are spent.
        spent: u32,
        parked: bool,
    },
    Running {
        token: LeaseToken,
        attempt: u32,
        cancel: bool,
    },
    Ended(State),
}

/// What a repeated settlement is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark<'h> {
    pub(super) token: LeaseToken,
    pub(super) verdict: &'h str,
    pub(super) recovered: bool,
}

/// What a call does to the job and what it was answered; no answer where nothing is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'h> {
    /// An enqueue, and whether it is to be parked.
    Enqueue(Option<Entry>, bool),
    /// A claim that was given it as this attempt; with none, one that may have been given it.
    Claim(LeaseToken, Option<(u32, u32)>),
    /// A renewal or an append, and what it was told of a cancellation.
    Hold(Kind, LeaseToken, Answer, bool),
    Settle(Mark<'h>, Option<Answer>),
    /// A change, and whether it parks the job.
    Amend(ChangeKind, bool, Option<Fate>),
    Prune,
    See(Sight),
}

/// What a look shows of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    state: State,
    attempt: u32,
    generation: u32,
    parked: bool,
}

impl From<&Seen> for Sight {
    fn from(seen: &Seen) -> Self {
        let parked = seen.state.is_waiting() && seen.due == Timestamp::MAX;
        Self { state: seen.state, attempt: seen.attempt, generation: seen.generation, parked }
    }
}

impl<'h> Register<'h> {
    pub(super) fn absent(max_attempts: u32) -> Self {
        Self { place: Place::Absent, generation: 0, max_attempts, settled: Vec::new() }
    }

    /// The job after this step; none if the step cannot be taken here, or not with this answer.
    pub(super) fn after(&self, step: &Step<'h>) -> Option<Self> {
        match *step {
            Step::Enqueue(entry, parked) => self.enqueued(entry, parked),
            Step::Claim(token, told) => self.claimed(token, told),
            Step::Hold(kind, token, answer, cancel) => {
                self.allows(kind, token, answer, cancel).then(|| self.clone())
            }
            Step::Settle(mark, answer) => self.settled(mark, answer),
            Step::Amend(action, parks, fate) => self.amended(action, parks, fate),
            Step::Prune => matches!(self.place, Place::Ended(_)).then(|| self.gone()),
            Step::See(Sight { state, attempt, generation, parked: seen_parked }) => {
                let alike = match self.place {
                    Place::Absent => false,
                    Place::Waiting { spent, parked } => {
                        state.is_waiting() && spent == attempt && parked == seen_parked
                    }
                    Place::Running { attempt: present, .. } => state == State::Running && present == attempt,
                    Place::Ended(end) => state == end,
                };
                (alike && generation == self.generation).then(|| self.clone())
            }
        }
    }

    fn at(&self, place: Place) -> Self {
        Self { place, ..self.clone() }
    }

    fn gone(&self) -> Self {
        Self::absent(self.max_attempts)
    }

    fn enqueued(&self, entry: Option<Entry>, parked: bool) -> Option<Self> {
        match (self.place, entry) {
            (Place::Absent, None | Some(Entry::Created)) => {
                Some(self.at(Place::Waiting { spent: 0, parked }))
            }
            (Place::Absent, Some(Entry::Held | Entry::Replaced)) => Some(self.clone()),
            (Place::Absent, Some(Entry::Existing))
            | (_, Some(Entry::Created | Entry::Held | Entry::Replaced)) => None,
            (_, None | Some(Entry::Existing | Entry::Refused)) => Some(self.clone()),
        }
    }

    fn claimed(&self, token: LeaseToken, told: Option<(u32, u32)>) -> Option<Self> {
        let after = match self.place {
            // One that is parked is never given out.
            Place::Waiting { spent, parked: false } => {
                self.at(Place::Running { token, attempt: spent + 1, cancel: false })
            }
            Place::Running { token: present, .. } if present == token => self.clone(),
            _ => return None,
        };
        let Place::Running { attempt, .. } = after.place else { return None };
        told.is_none_or(|told| told == (attempt, after.generation)).then_some(after)
    }

    fn runs_under(&self, wanted: LeaseToken) -> bool {
        matches!(self.place, Place::Running { token, .. } if token == wanted)
    }

    fn allows(&self, kind: Kind, token: LeaseToken, answer: Answer, told: bool) -> bool {
        match answer {
            Answer::Lost => !self.runs_under(token),
            // Lines may be known to be there also when the lease is over.
            Answer::AlreadyApplied => true,
            Answer::Applied => match self.place {
                Place::Running { token: present, cancel, .. } => {
                    present == token && (kind != Kind::Renew || cancel == told)
                }
                _ => false,
            },
        }
    }

    fn settled(&self, mark: Mark<'h>, answer: Option<Answer>) -> Option<Self> {
        let runs = self.runs_under(mark.token);
        match answer {
            None | Some(Answer::Applied) => self.ended_by(mark),
            Some(Answer::AlreadyApplied) => (!runs && self.settled.contains(&mark)).then(|| self.clone()),
            // A lease that is valid is not recovered.
            Some(Answer::Lost) if runs => mark.recovered.then(|| self.clone()),
            Some(Answer::Lost) => (self.settled.last() != Some(&mark)).then(|| self.clone()),
        }
    }

    fn ended_by(&self, mark: Mark<'h>) -> Option<Self> {
        let Place::Running { token, attempt, cancel } = self.place else { return None };
        if token != mark.token {
            return None;
        }
        let place = match mark.verdict {
            "succeed" => Place::Ended(State::Succeeded),
            "fail" => Place::Ended(State::Failed),
            "cancel" => Place::Ended(State::Cancelled),
            _ if cancel => Place::Ended(State::Cancelled),
            "retry" if attempt >= self.max_attempts => Place::Ended(State::Failed),
            "retry" => Place::Waiting { spent: attempt, parked: false },
            _ => Place::Waiting { spent: attempt.checked_sub(1)?, parked: false },
        };
        let mut after = self.at(place);
        after.settled.push(mark);
        Some(after)
    }

    fn amended(&self, action: ChangeKind, parks: bool, fate: Option<Fate>) -> Option<Self> {
        if fate == Some(Fate::NotFound) || self.place == Place::Absent {
            return (fate == Some(Fate::NotFound) && self.place == Place::Absent).then(|| self.clone());
        }
        let changed = self.changed(action, parks);
        match fate {
            None => changed,
            Some(Fate::Applied) => changed.filter(|_| !self.is_asked_only(action)),
            Some(Fate::Requested) => changed.filter(|_| self.is_asked_only(action)),
            // Another holder of its key may be in the way of a requeue.
            Some(Fate::Refused) => {
                let is_so =
                    action == ChangeKind::CancelParked && self.place == Place::Ended(State::Cancelled);
                let may_be = changed.is_none() && !is_so || action == ChangeKind::Requeue;
                may_be.then(|| self.clone())
            }
            Some(Fate::AlreadyApplied | Fate::NotFound) => match action {
                ChangeKind::Cancel | ChangeKind::CancelParked => {
                    (self.place == Place::Ended(State::Cancelled)).then(|| self.clone())
                }
                ChangeKind::Unpark => changed.is_none().then(|| self.clone()),
                _ => Some(self.clone()),
            },
        }
    }

    /// Whether the change is not made now but when the holder's attempt ends.
    fn is_asked_only(&self, action: ChangeKind) -> bool {
        action == ChangeKind::Cancel && matches!(self.place, Place::Running { .. })
    }

    /// The job after an operator's change; none if its state does not allow it.
    fn changed(&self, action: ChangeKind, parks: bool) -> Option<Self> {
        match (action, self.place) {
            (ChangeKind::Cancel, Place::Waiting { .. })
            | (ChangeKind::CancelParked, Place::Waiting { parked: true, .. }) => {
                Some(self.at(Place::Ended(State::Cancelled)))
            }
            (ChangeKind::Cancel, Place::Running { token, attempt, .. }) => {
                Some(self.at(Place::Running { token, attempt, cancel: true }))
            }
            (ChangeKind::Requeue, Place::Ended(_)) => Some(Self {
                generation: self.generation + 1,
                ..self.at(Place::Waiting { spent: 0, parked: parks })
            }),
            (ChangeKind::Delete, Place::Waiting { .. } | Place::Ended(_)) => Some(self.gone()),
            (ChangeKind::Postpone, Place::Waiting { spent, .. }) => {
                Some(self.at(Place::Waiting { spent, parked: parks }))
            }
            (ChangeKind::Unpark, Place::Waiting { spent, parked: true }) => {
                Some(self.at(Place::Waiting { spent, parked: false }))
            }
            (ChangeKind::Move, Place::Waiting { .. } | Place::Ended(_))
            | (ChangeKind::Reprioritise | ChangeKind::Preview, _) => Some(self.clone()),
            _ => None,
        }
    }
}
