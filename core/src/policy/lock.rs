use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// How long the record of a lock is kept after its latest lease was over. Until then its tokens grow by what it says;
/// afterwards by the store's clock.
const KEPT: Duration = Duration::from_hours(24);

/// A named lock as its register says it (clause F7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    /// Who has it; none once it was released.
    pub holder: Option<Uuid>,
    /// The fencing token of its latest holder.
    pub token: u64,
    /// When that one's lease is over.
    pub until: Timestamp,
}

impl LockState {
    /// What a lock is once `holder` took it, if it is free at this hour.
    ///
    /// A token is greater than the one before, and no less than the hour in milliseconds: so tokens also grow where the
    /// record was removed meanwhile, unless the lock was taken more often than once a millisecond or the store's clock
    /// was set back by longer than the record is kept.
    ///
    /// # Errors
    /// How long it is held by another one, if it is not released or renewed before.
    pub fn taken(
        there: Option<&Self>,
        holder: Uuid,
        lease: Duration,
        hour: Timestamp,
    ) -> Result<Self, Duration> {
        let before = there.map_or(0, |lock| lock.token);
        let token = match there.filter(|lock| lock.until >= hour) {
            Some(lock) if lock.holder == Some(holder) => lock.token,
            Some(lock) if lock.holder.is_some() => {
                return Err(lock.until.since(hour) + Duration::from_millis(1));
            }
            _ => (before + 1).max(u64::try_from(hour.as_millis()).unwrap_or(0)),
        };
        Ok(Self { holder: Some(holder), token, until: hour.plus(lease) })
    }

    /// What it is once its lease is renewed; none if somebody else has it by now, or nobody.
    ///
    /// A lease that ran out is renewed as long as nobody else took the lock (C2).
    #[must_use]
    pub fn renewed(&self, holder: Uuid, token: u64, lease: Duration, hour: Timestamp) -> Option<Self> {
        let until = self.until.max(hour.plus(lease));
        self.is_of(holder, token).then(|| Self { until, ..self.clone() })
    }

    /// What it is once it is released; none if somebody else has it by now, or nobody.
    #[must_use]
    pub fn released(&self, holder: Uuid, token: u64) -> Option<Self> {
        self.is_of(holder, token).then(|| Self { holder: None, ..self.clone() })
    }

    fn is_of(&self, holder: Uuid, token: u64) -> bool {
        self.holder == Some(holder) && self.token == token
    }

    /// When its record may be removed.
    pub fn expires(&self) -> Timestamp {
        self.until.plus(KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1_000)
    }

    #[test]
    fn is_taken_by_one_until_its_lease_is_over_and_its_token_grows() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = LockState::taken(None, a, LEASE, at(0)).unwrap();
        assert_eq!((first.token, first.until), (1_000_000, at(10)));
        assert_eq!(LockState::taken(Some(&first), b, LEASE, at(4)), Err(Duration::from_millis(6_001)));
        assert!(LockState::taken(Some(&first), b, LEASE, at(10)).is_err(), "exactly now is not past");
        let again = LockState::taken(Some(&first), a, LEASE, at(4)).unwrap();
        assert_eq!((again.token, again.until), (first.token, at(14)), "a repetition");
        let second = LockState::taken(Some(&first), b, LEASE, at(11)).unwrap();
        assert_eq!((second.holder, second.token), (Some(b), 1_011_000));
        let set_back = LockState::taken(Some(&second), a, LEASE, at(-500).plus(LEASE * 100)).unwrap();
        assert!(set_back.token > second.token);
        let set_back = LockState { until: at(-900), ..second };
        assert_eq!(LockState::taken(Some(&set_back), a, LEASE, at(-800)).unwrap().token, 1_011_001);
    }

    #[test]
    fn is_renewed_and_released_by_its_holder_alone() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let lock = LockState::taken(None, a, LEASE, at(0)).unwrap();
        assert_eq!(lock.renewed(a, lock.token, LEASE, at(3)).unwrap().until, at(13));
        assert_eq!(lock.renewed(a, lock.token, LEASE, at(-3)).unwrap().until, at(10), "never shortened");
        assert_eq!(lock.renewed(b, lock.token, LEASE, at(3)), None);
        assert_eq!(lock.renewed(a, lock.token - 1, LEASE, at(3)), None);
        assert_eq!(lock.released(b, lock.token), None);
        let free = lock.released(a, lock.token).unwrap();
        assert_eq!((free.holder, free.token), (None, lock.token));
        assert_eq!(free.released(a, lock.token), None);
        let next = LockState::taken(Some(&free), b, LEASE, at(0)).unwrap();
        assert_eq!(next.token, lock.token + 1, "within the same millisecond");
    }
}
