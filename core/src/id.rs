//! Ids and lease tokens. All are made by the client, so that every call may be repeated (clause E2).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::name::RegisterName;
use crate::time::Timestamp;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with these 128 bits.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id's 128 bits.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        // As one number rather than as sixteen bytes: the order is the same, and every index compares ids.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.0.as_u128().cmp(&other.0.as_u128())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, hasher: &mut H) {
                hasher.write_u128(self.0.as_u128());
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let why = |e| Error::invalid(format!("{text:?} is not {}: {e}", $what));
                Uuid::parse_str(text).map(Self).map_err(why)
            }
        }
    )*};
}

ids! {
    /// Names one job for ever. UUIDv7: ids of one producer sort in the order they were made.
    JobId, "a job's id";
    /// Names one start of one worker. Unique per start, so a worker that is killed and started again at
    /// once under the same [`WorkerName`](crate::WorkerName) is another one, and nothing waits for it.
    WorkerId, "a worker's id";
    /// Names one claim call; the tokens of all leases that it grants derive from it.
    ClaimId, "a claim's id";
    /// The right to write under one lease: what a store compares before every such write (clause C2).
    LeaseToken, "a lease token";
    /// Names one flow for ever, and by it [its jobs](FlowId::member). UUIDv7, so flows of one producer sort in the order they
    /// were made.
    FlowId, "a flow's id";
    /// Names one write of a register: what the next write of it is fenced by (clause F6).
    VersionId, "a version's id";
}

impl JobId {
    /// A fresh id, later than all that this process made before.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of the job of one tick of a schedule: the same for whoever computes it, so that firing a tick
    /// twice is one job and no leader is needed (clause F2).
    pub fn of_tick(schedule: &RegisterName, tick: Timestamp) -> Self {
        const NAMESPACE: Uuid = Uuid::from_u128(0x4c65_6173_6568_6f6c_6420_7469_636b_7321);
        Self(Uuid::new_v5(&NAMESPACE, format!("{}\n{schedule}", tick.as_millis()).as_bytes()))
    }
}

impl JobId {
    /// The id of the job that a payload of a bundle becomes: the same for whoever computes it, so that it becomes one
    /// however often the bundle is run.
    pub(crate) fn of_payload(bundle: JobId, index: u32) -> Self {
        Self(Uuid::new_v5(&bundle.0, &index.to_le_bytes()))
    }

    /// The id of the job by which a payload comes back once it was taken.
    pub(crate) fn of_pushed_back(job: JobId, generation: u32) -> Self {
        Self(Uuid::new_v5(&job.0, format!("pushed back {generation}").as_bytes()))
    }
}

/// The bits of a flow's id that are zero, and that number its jobs.
const MEMBER: u128 = 0xffff_ffff;

impl FlowId {
    /// A fresh id, later than all that this process made before.
    pub fn generate() -> Self {
        // What is left holds the counter by which ids of one moment differ, and ten bits by chance.
        Self(Uuid::from_u128(Uuid::now_v7().as_u128() & !MEMBER))
    }

    /// The id of its job of this index, from 0: the same for whoever computes it. They sort by their indices.
    pub fn member(self, index: u32) -> JobId {
        JobId(Uuid::from_u128((self.0.as_u128() & !MEMBER).wrapping_add(u128::from(index) + 1)))
    }

    /// The flow, and the index in it, of a job that is one of a flow.
    pub(crate) fn of_member(job: JobId) -> Option<(Self, u32)> {
        let bits = job.0.as_u128();
        let index = u32::try_from(bits & MEMBER).unwrap_or_default().checked_sub(1)?;
        Some((Self(Uuid::from_u128(bits & !MEMBER)), index))
    }
}

impl VersionId {
    /// A fresh id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl WorkerId {
    /// A fresh id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl ClaimId {
    /// A fresh id: 122 random bits, since whoever knows it can write under the claim's leases.
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }

    /// The token of the lease that this claim grants on `job`.
    ///
    /// It is the exclusive or of both ids. So each lease has a token of its own, a store needs to keep but
    /// the claim's id for a whole batch, and can tell the claim from the token ([`LeaseToken::claim`]).
    pub fn token(self, job: JobId) -> LeaseToken {
        LeaseToken(Uuid::from_u128(self.0.as_u128() ^ job.0.as_u128()))
    }
}

impl LeaseToken {
    /// The claim that granted this lease on `job`.
    pub fn claim(self, job: JobId) -> ClaimId {
        ClaimId(Uuid::from_u128(self.0.as_u128() ^ job.0.as_u128()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_in_the_order_they_were_made() {
        let ids: Vec<JobId> = (0..10_000).map(|_| JobId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn a_token_is_of_one_claim_and_one_job() {
        let (claim, a, b) = (ClaimId::generate(), JobId::generate(), JobId::generate());
        assert_ne!(claim.token(a), claim.token(b));
        assert_eq!(claim.token(a).claim(a), claim);
        assert_ne!(claim.token(a).claim(b), claim);
    }

    #[test]
    fn a_tick_has_one_id_everywhere() {
        let (nightly, t) = (RegisterName::new("nightly").unwrap(), Timestamp::from_millis(1_000));
        assert_eq!(JobId::of_tick(&nightly, t), JobId::of_tick(&nightly, t));
        assert_ne!(JobId::of_tick(&nightly, t), JobId::of_tick(&nightly, Timestamp::from_millis(1_001)));
    }

    #[test]
    fn jobs_of_a_flow_are_known_by_their_ids() {
        let flows: Vec<FlowId> = (0..10_000).map(|_| FlowId::generate()).collect();
        assert!(flows.is_sorted() && flows.windows(2).all(|two| two[0] != two[1]));
        let flow = flows[0];
        let members: Vec<JobId> = [0, 1, 2, 999_999].map(|index| flow.member(index)).to_vec();
        assert!(members.is_sorted() && members.iter().all(|job| job.0.as_u128() > flow.0.as_u128()));
        assert_eq!(FlowId::of_member(flow.member(999_999)), Some((flow, 999_999)));
        assert_eq!(FlowId::of_member(JobId(flow.0)), None);
        // Whoever hands in an id that is no flow's.
        let (odd, last) = (FlowId(Uuid::from_u128(flow.0.as_u128() | 7)), FlowId(Uuid::from_u128(u128::MAX)));
        assert_eq!((odd.member(3), odd.member(4)), (flow.member(3), flow.member(4)));
        assert_ne!(last.member(0), last.member(u32::MAX));
    }

    #[test]
    fn a_bad_id_is_said_to_be_one() {
        assert_eq!("x".parse::<JobId>().unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }
}
