//! The contract: what every store does for a queue, and all that it does.
//!
//! Clause numbers (P1, C2, …) are those of `docs/contract.md`, the law of the project. A backend implements
//! [`Backend`] and passes `leasehold-conformance`; nothing else makes it one.
//!
//! Rules that hold for **every** method:
//! - It is one whole atomic transition per item, or none: nobody ever sees half of it.
//! - It answers by its [`Deadline`]; what had been sent by then and was not answered is
//!   [`Unknown`](crate::ErrorKind::Unknown), never failed (E1, E3).
//! - It may be repeated, and has the effect of one (E2).
//! - Dropping its future at any await leaves the backend usable (E4).
//! - Its input was checked by [`layer::Check`](crate::layer::Check); the backend need not check it again (B1, B2).
//! - Time is the store's (C8). A moment of exactly now is not yet past: a lease is expired when
//!   `lease_until < now`, a job is due when `due <= now`.
//! - Its errors are transient where waiting can help, and show no secret (B5, B6).

mod admit;
mod claim;
mod control;
mod describe;
mod enqueue;
mod inspect;
mod logs;
mod recover;
mod registers;
mod renew;
mod settle;
mod watch;
mod workers;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use self::admit::{Admit, Admitted, Arrival};
pub use self::claim::{Claim, Claimed, KindRule, SetAside, TagRule};
pub use self::control::{
    Action, Amend, AmendAnswer, Amended, Pause, Prune, Pruned, QueueRecord, QueueSettings, Select, SetQueue,
};
pub use self::describe::{Capabilities, Description, Durability};
pub use self::enqueue::{Enqueue, EnqueueAnswer, Enqueued};
pub use self::inspect::{Age, Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts};
pub use self::logs::{AppendLogs, Level, LogAppend, LogCaps, LogLine, LogPage, LogSource, NewLine, ReadLogs};
pub use self::recover::{Expired, ExpiredLease, Recover};
pub use self::registers::{DeleteRegister, PutRegister, Register, RegisterPage, Registers, Space};
pub use self::renew::{Renew, Renewal, Renewed};
pub use self::settle::{Answer, NewFailure, Settle, Settlement, Verdict};
pub use self::watch::{Event, Watch};
pub use self::workers::{CheckIn, CheckedIn, StopWorkers, WorkerInfo, WorkerLine, WorkerRecord, Workers};

use crate::error::Result;
use crate::job::JobRecord;
use crate::time::{Deadline, Timestamp};

/// A store of jobs. See the [module](self) for the rules that all methods share.
#[async_trait]
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    /// Tells what this store is and what it can do, as read from the server itself.
    ///
    /// - The durability class comes from the server's settings, not from ours (P1).
    ///
    /// # Errors
    /// Transient ones.
    async fn describe(&self, deadline: Deadline) -> Result<Description>;

    /// Makes the store ready: creates or migrates what is missing.
    ///
    /// - Any number of processes may call it at once, at any time (B4).
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the store is of a newer version or not ours;
    /// [`Denied`](crate::ErrorKind::Denied) without the rights; transient ones.
    async fn setup(&self, deadline: Deadline) -> Result<()>;

    /// Tells the hour by the store's clock, the only one that counts (C8).
    ///
    /// # Errors
    /// Transient ones.
    async fn now(&self, deadline: Deadline) -> Result<Timestamp>;

    /// Takes jobs in.
    ///
    /// - Answers one item per job, in order (P3).
    /// - All or nothing where [`Capabilities::atomic_batch`]; else each job is, and its answer says so (P3).
    /// - What is acknowledged outlives every fault that the durability class covers (P1).
    /// - An id that is there already changes nothing and answers [`EnqueueAnswer::Existing`] (P2); this is
    ///   tested before the unique key, so that a repeated call gets the first one's answer.
    /// - Of jobs that share a unique key one gets in, the others learn its id (P4). Within a batch the first.
    /// - A newcomer whose [`OnConflict`](crate::OnConflict) says so replaces payload, priority and due time of a holder
    ///   that waits and is of its kind, and is answered [`EnqueueAnswer::Replaced`] (P4). A claim gives out the old or the
    ///   new payload; the old one only if the newcomer finds the job running.
    /// - An id that is among the latest [`limits::REPLACEMENTS`](crate::limits::REPLACEMENTS) that replaced a job which is
    ///   kept changes nothing and gets the same answer, whatever became of the job since (E2).
    /// - Payloads are kept byte for byte (P6).
    ///
    /// # Errors
    /// [`Full`](crate::ErrorKind::Full), transient ones.
    async fn enqueue(&self, deadline: Deadline, request: Enqueue) -> Result<Vec<Enqueued>>;

    /// Takes in jobs of another store as they are there: with their states, attempts, moments, results and logs (P8).
    ///
    /// - Answers one item per job, in order (P3). All or nothing where [`Capabilities::atomic_batch`].
    /// - What is acknowledged outlives every fault that the durability class covers (P1), and nobody sees a job without its
    ///   log.
    /// - An id that is there already changes nothing and answers [`Admitted::Existing`] (P2); this is tested before the unique
    ///   key.
    /// - A job that holds its unique key, see [`JobRecord::held_key`], gets in with it or not at all (P4). One that does not
    ///   hold it gets in whoever does.
    /// - A job counts as enqueued here (S2), and stands in lists where its `enqueued_at` says.
    /// - When an ended one goes is told by its `finished_at` and its retention (F5); one that was withdrawn stays.
    /// - The attempts that it began elsewhere are nobody's here: whatever their holders write is [`Answer::Lost`] (C2).
    ///
    /// # Errors
    /// [`Full`](crate::ErrorKind::Full), transient ones.
    async fn admit(&self, deadline: Deadline, request: Admit) -> Result<Vec<Admitted>>;

    /// Takes up to `limit` due jobs under leases that end by the store's clock.
    ///
    /// - Nobody else is given such a job while its lease is valid (C1).
    /// - Spends an attempt of each (C4); a job with none left is never given out.
    /// - Highest priority first, then earliest due, then lowest id (C6).
    /// - Only queues, kinds and tags that match; what does not match blocks nothing (C7).
    /// - Never more than `max` running jobs per limit key (C9); such jobs wait and block nothing.
    /// - A job without room whose limit says [`WhenFull::End`](crate::WhenFull::End), and that would be given out if it had room,
    ///   ends as cancelled, [`LimitReached`](crate::Reason::LimitReached) (C9). No more of them than
    ///   [`limits::ENDED_BY_A_CLAIM`](crate::limits::ENDED_BY_A_CLAIM) in one call.
    /// - Nothing from a queue that is paused, or that lies under a root that is: see [`QueueName::roots`](crate::QueueName::roots)
    ///   (C10). A root that is named means itself alone: clients name what lies under it.
    /// - Nothing from a queue with a rate, unless the claim says that it is within it (F8).
    /// - The lease is the job's own where it has one, else the request's.
    /// - The token of each is [`ClaimId::token`](crate::ClaimId::token) (C11).
    /// - A claim whose id gave out jobs within [`limits::CLAIM_MEMORY`](crate::limits::CLAIM_MEMORY) is a
    ///   repetition: it returns those that are still held under it, maybe none, and takes no other (E2).
    /// - A unique key held [`UntilClaimed`](crate::UniqueScope::UntilClaimed) is free from here on (P4).
    /// - A record that cannot be read is set aside as failed, reported, and stops no other (B3).
    ///
    /// # Errors
    /// Transient ones.
    async fn claim(&self, deadline: Deadline, request: Claim) -> Result<Claimed>;

    /// Extends leases, and records progress with them.
    ///
    /// - Answers one item per renewal, in order (C11). No lease comes twice: the layers see to it.
    /// - [`Renewed::Lost`] unless the job runs under this very token (C2); then nothing changes.
    /// - The new end is now plus the renewal's `lease`; a renewal never shortens a lease.
    /// - A lease that ran out and was not yet recovered is renewed: nobody else holds the job (C2).
    /// - Tells when somebody asked to cancel the job (S5).
    /// - Progress is kept verbatim (S6).
    ///
    /// # Errors
    /// Transient ones.
    async fn renew(&self, deadline: Deadline, request: Renew) -> Result<Vec<Renewed>>;

    /// Records how attempts ended.
    ///
    /// - Answers one item per settlement, in order; one that is lost spoils no other (C11).
    /// - [`Answer::Lost`] unless the job runs under this very token (C2); then nothing changes.
    /// - The same settlement again is [`Answer::AlreadyApplied`], with no second effect (C2). A store
    ///   remembers the latest settlement of each job, and this at least until the next one.
    /// - Terminal verdicts end the job for good (S1) and set `expires_at` by its retention (F5).
    /// - [`Verdict::Retry`] keeps id, payload, attempts and history; not claimable before its time (S3, C4). With a queue, the job is
    ///   there from then on: one queue counts it out and the other in, in the same write (S2). A job that ends instead, since
    ///   no attempt is left or somebody asked for its end, stays in the queue that it is in.
    /// - [`Verdict::Release`] gives the attempt back (C4).
    /// - A retry or release of a job that somebody asked to cancel ends it as cancelled (S5).
    /// - The failure, if any, joins the job's history, which keeps the first and the latest (S4).
    /// - A lease that ran out and was not yet recovered still settles: nobody else holds the job (C2).
    ///
    /// # Errors
    /// [`Full`](crate::ErrorKind::Full), transient ones.
    async fn settle(&self, deadline: Deadline, request: Settle) -> Result<Vec<Answer>>;

    /// Lists leases that ran out, longest ago first, for [`recover`](Self::recover).
    ///
    /// - Changes nothing, but that a record that cannot be read is set aside (B3).
    ///
    /// # Errors
    /// Transient ones.
    async fn expired(&self, deadline: Deadline, request: Expired) -> Result<Vec<ExpiredLease>>;

    /// Takes back jobs whose leases ran out, as the caller's policy decided (C3, C5).
    ///
    /// - Like [`settle`](Self::settle), but [`Answer::Lost`] also if the lease is valid: the holder renewed
    ///   it meanwhile, and a recoverer that paused never overwrites what happened meanwhile (C2).
    /// - Counts a crash (C5); the attempt stays spent (C4).
    ///
    /// # Errors
    /// Transient ones.
    async fn recover(&self, deadline: Deadline, request: Recover) -> Result<Vec<Answer>>;

    /// Adds lines to the capped logs of running jobs.
    ///
    /// - Answers one item per append, in order; [`Answer::Lost`] unless the job runs under this token (C2).
    /// - Lines get increasing sequences that are never reused (L2).
    /// - At a cap the oldest lines go; appending does not fail for it, nor slow down with age (L1).
    /// - Lines whose position the store has already taken in from this lease are not taken again (E2).
    ///
    /// # Errors
    /// Transient ones, which a worker never takes for a failure of the job (L4).
    async fn append_logs(&self, deadline: Deadline, request: AppendLogs) -> Result<Vec<Answer>>;

    /// Reads a job's or a worker's lines after a sequence, oldest first.
    ///
    /// - In the order written (L2); tells whether lines after that sequence fell to the cap (L3).
    ///
    /// # Errors
    /// Transient ones.
    async fn read_logs(&self, deadline: Deadline, request: ReadLogs) -> Result<LogPage>;

    /// Shows jobs by id: one item per id, in order, none for an unknown one.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a record that cannot be read; transient ones.
    async fn find(&self, deadline: Deadline, request: Find) -> Result<Vec<Option<JobRecord>>>;

    /// Shows a page of jobs.
    ///
    /// - Paged by key, so a job that stays is neither skipped nor shown twice while others come and go (F4).
    /// - Records that cannot be read are named apart (B3).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a cursor of another list; transient ones.
    async fn list(&self, deadline: Deadline, request: List) -> Result<Page>;

    /// Counts jobs by queue and state.
    ///
    /// - From kept counts, never by a scan of the whole store (F4).
    /// - Adds up: the jobs of all states and the deleted ones are those ever enqueued (S2).
    ///
    /// # Errors
    /// Transient ones.
    async fn counts(&self, deadline: Deadline, request: Counts) -> Result<Vec<QueueCounts>>;

    /// Cancels, requeues, deletes, moves or reorders jobs, by id or by filter.
    ///
    /// - By filter it touches only jobs enqueued at or before `as_of`, a bounded batch per call, and returns
    ///   where to go on (F4).
    /// - A preview answers the same and changes nothing.
    /// - A waiting job is cancelled at once; of a running one it is asked (S5).
    /// - Only an ended job is requeued: attempts, crashes, result and progress start anew, `generation`
    ///   grows, history stays (S1).
    /// - [`Action::Unpark`] touches a parked job alone; any other that is there is [`AmendAnswer::AlreadyApplied`]. It has no
    ///   reason then, and whoever waits for jobs is told as after a postponement (P7).
    /// - [`Action::CancelParked`] ends a parked job as cancelled, for the reason `dependency`. A cancelled one is
    ///   [`AmendAnswer::AlreadyApplied`], any other [`AmendAnswer::Refused`] (P7). Both judge and change a job in one step: one
    ///   that was unparked meanwhile is not parked.
    /// - [`Action::Withdraw`] ends a waiting job as cancelled, for the reason `moved`: nothing but its state, its reason and when
    ///   it ended changes, and no age removes it (P8). One that is withdrawn is [`AmendAnswer::AlreadyApplied`], and any other is
    ///   refused.
    /// - A withdrawn job is refused whatever else but [`Action::Restore`], a removal or its like is asked of it: it goes on
    ///   elsewhere (P8).
    /// - [`Action::Restore`] lets a withdrawn job wait again as it did, with its unique key or not at all (P4). One that waits is
    ///   [`AmendAnswer::AlreadyApplied`], any other is refused.
    /// - [`Action::DeleteEnded`] removes a job only if it has ended, and no later than the named moment; any other is refused.
    /// - A running job is not deleted, moved or postponed: [`AmendAnswer::Refused`] (C2). One that is in the queue
    ///   already is [`AmendAnswer::AlreadyApplied`] in any state, as a repeated call must be told (E2).
    /// - No id comes twice: the layers see to it.
    ///
    /// # Errors
    /// Transient ones.
    async fn amend(&self, deadline: Deadline, request: Amend) -> Result<Amended>;

    /// Changes the settings of a queue, such as its pause (C10) and its rate (F8); makes the queue known if it was not.
    ///
    /// # Errors
    /// Transient ones.
    async fn set_queue(&self, deadline: Deadline, request: SetQueue) -> Result<()>;

    /// Shows every known queue with its settings, by name.
    ///
    /// # Errors
    /// Transient ones.
    async fn queues(&self, deadline: Deadline) -> Result<Vec<QueueRecord>>;

    /// Removes ended jobs whose retention is over, workers long gone, and registers that expired; a bounded batch (F5).
    ///
    /// - Never a job that has not ended, nor one whose `expires_at` is not past.
    /// - Never a register whose `expires` is not past (F6).
    ///
    /// # Errors
    /// Transient ones.
    async fn prune(&self, deadline: Deadline, request: Prune) -> Result<Pruned>;

    /// Announces a worker, or says that it still lives (F1).
    ///
    /// - Answers whether somebody asked it to stop.
    ///
    /// # Errors
    /// Transient ones.
    async fn check_in(&self, deadline: Deadline, request: CheckIn) -> Result<CheckedIn>;

    /// Shows the workers, newest first; those that stopped checking in are shown lost (F1).
    ///
    /// # Errors
    /// Transient ones.
    async fn workers(&self, deadline: Deadline, request: Workers) -> Result<Vec<WorkerRecord>>;

    /// Asks workers to stop, which they learn at their next check-in. Answers how many were asked (F1).
    ///
    /// # Errors
    /// Transient ones.
    async fn stop_workers(&self, deadline: Deadline, request: StopWorkers) -> Result<u64>;

    /// Writes a register if its version is still the expected one (F6).
    ///
    /// - Whatever was written, removed or pruned since its writer read it, the writer is refused.
    /// - A write whose version is there already is a repetition, and changes nothing (E2).
    /// - Whether it was due or has expired makes no difference.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if it is another one; transient ones.
    async fn put_register(&self, deadline: Deadline, request: PutRegister) -> Result<()>;

    /// Shows registers of a space by name: all, the one of a name, or only those that are due by the store's clock (F6).
    ///
    /// - Tells the hour, which was the store's at some moment between the question and the answer, and no later than
    ///   that at which the registers were read (C8).
    /// - One that has expired is shown until it is pruned.
    ///
    /// # Errors
    /// Transient ones.
    async fn registers(&self, deadline: Deadline, request: Registers) -> Result<RegisterPage>;

    /// Removes a register, only if it has the expected version where one is named; answers whether it did (F6).
    ///
    /// - Whoever repeats it is told no, since it is there no more.
    ///
    /// # Errors
    /// Transient ones.
    async fn delete_register(&self, deadline: Deadline, request: DeleteRegister) -> Result<bool>;

    /// Opens a stream of events: hints that make waiting short, of which any may be missing (F3).
    ///
    /// - Only what was asked for: of the asked queues, and of log lines only if [`Watch::logs`] says so.
    /// - The stream is bounded: a reader that falls behind gets [`Event::Gap`] and looks for itself.
    /// - It ends when the backend closes.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capabilities::events`]; transient ones.
    async fn watch(&self, deadline: Deadline, request: Watch) -> Result<BoxStream<'static, Event>>;
}
