//! What a sequence is made of. A step names things by small numbers, which count among what there is when the step is
//! taken: so whatever is left out of a sequence, the rest still means something.

use std::time::Duration;

use leasehold_core::backend::{Order, Verdict};
use leasehold_core::{Due, Keep, OnConflict, Reason, State, UniqueScope};
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

/// Counts back from the latest one, and round again.
pub(super) type Nth = u8;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Enqueue(Vec<Job>),
    EnqueueAgain(Nth),
    Claim(Claim),
    ClaimAgain(Nth),
    Renew(Vec<Renewal>),
    Settle(Vec<Settlement>),
    SettleAgain(Nth),
    ReadExpired {
        limit: usize,
    },
    Recover {
        leases: Vec<Nth>,
        retry: bool,
        delay: Duration,
    },
    Log {
        lease: Nth,
        again: u64,
        lines: usize,
    },
    Amend {
        jobs: Vec<Nth>,
        action: Action,
        preview: bool,
    },
    AmendMatching {
        filter: Filter,
        action: Action,
        preview: bool,
        page: usize,
    },
    /// Takes a job out of the store and brings it back, as if it went to another one and came from there.
    Carry(Nth),
    SetQueue {
        queue: u8,
        paused: bool,
        rated: bool,
    },
    Prune,
    List {
        filter: Filter,
        order: Order,
        page: usize,
    },
    CheckIn {
        worker: u8,
        leaving: bool,
        lost_after: Duration,
    },
    StopWorkers {
        worker: Option<u8>,
    },
    PutRegister {
        name: u8,
        next: Option<Duration>,
        expires: Option<Duration>,
        stale: bool,
        again: bool,
    },
    DeleteRegister {
        name: u8,
        /// By a version that was there once.
        stale: bool,
    },
    Pass(Duration),
    /// To one of the moments that something waits for, or a millisecond before or after.
    PassTo {
        edge: u8,
        off: i8,
    },
    Restart,
}

/// A job to enqueue. Two of one number are the same job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) number: u8,
    pub(super) queue: u8,
    pub(super) kind: u8,
    pub(super) priority: i16,
    pub(super) due: JobDue,
    pub(super) tags: u8,
    pub(super) unique: Option<(u8, UniqueScope, OnConflict)>,
    /// The key, how many, and whether it ends rather than waits.
    pub(super) limit: Option<(u8, u32, bool)>,
    pub(super) max_attempts: u32,
    pub(super) lease: Option<Duration>,
    pub(super) keep: Keep,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum JobDue {
    Said(Due),
    /// So long before the present hour.
    Before(Duration),
}

#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) worker: u8,
    /// One bit for each queue.
    pub(super) queues: u8,
    pub(super) kinds: Rule,
    pub(super) tags: Rule,
    pub(super) min_priority: Option<i16>,
    pub(super) limit: usize,
    pub(super) lease: Duration,
    pub(super) rated: bool,
}

/// All, these or those but these; one bit for each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Any,
    First(u8),
    Second(u8),
}

#[derive(Debug, Clone)]
pub(super) struct Renewal {
    pub(super) lease: Nth,
    pub(super) span: Duration,
    pub(super) progress: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Settlement {
    pub(super) lease: Nth,
    pub(super) verdict: Verdict,
    /// The queue that it goes to, if it is tried again.
    pub(super) queue: Option<u8>,
    pub(super) failure: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Cancel,
    Requeue(Due),
    Delete,
    Move(u8),
    Reprioritise(i16),
    Postpone(Due),
    Unpark(Due),
    CancelParked,
    Withdraw,
    Restore,
    /// Whatever ended by so many milliseconds before now.
    DeleteEnded(u64),
}

#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) queue: Option<u8>,
    pub(super) states: Option<Vec<State>>,
    pub(super) kind: Option<u8>,
    pub(super) tag: Option<u8>,
}

/// Whole sequences.
pub(super) fn sequences() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..=40)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => vec(job(), 1..=4).prop_map(Step::Enqueue),
        1 => nth().prop_map(Step::EnqueueAgain),
        10 => claim().prop_map(Step::Claim),
        2 => nth().prop_map(Step::ClaimAgain),
        4 => vec(renewal(), 1..=3).prop_map(Step::Renew),
        9 => vec(settlement(), 1..=4).prop_map(Step::Settle),
        2 => nth().prop_map(Step::SettleAgain),
        3 => (1..=4_usize).prop_map(|limit| Step::ReadExpired { limit }),
        4 => (vec(nth(), 1..=3), any::<bool>(), soon())
            .prop_map(|(leases, retry, delay)| Step::Recover { leases, retry, delay }),
        2 => (nth(), 0..=2_u64, 0..=3_usize).prop_map(|(lease, again, lines)| Step::Log { lease, again, lines }),
        5 => (vec(nth(), 1..=3), action(), seldom())
            .prop_map(|(jobs, action, preview)| Step::Amend { jobs, action, preview }),
        2 => (filter(), action(), seldom(), 1..=3_usize)
            .prop_map(|(filter, action, preview, page)| Step::AmendMatching { filter, action, preview, page }),
        2 => (0..QUEUES, any::<bool>(), seldom())
            .prop_map(|(queue, paused, rated)| Step::SetQueue { queue, paused, rated }),
        1 => Just(Step::Prune),
        2 => (filter(), select(vec![Order::OldestFirst, Order::NewestFirst]), 1..=4_usize)
            .prop_map(|(filter, order, page)| Step::List { filter, order, page }),
        2 => (0..WORKERS, seldom(), soon())
            .prop_map(|(worker, leaving, lost_after)| Step::CheckIn { worker, leaving, lost_after }),
        1 => of(0..WORKERS).prop_map(|worker| Step::StopWorkers { worker }),
        2 => (0..REGISTERS, of(soon()), of(soon()), seldom(), seldom()).prop_map(
            |(name, next, expires, stale, again)| Step::PutRegister { name, next, expires, stale, again }
        ),
        2 => (0..REGISTERS, any::<bool>())
            .prop_map(|(name, stale)| Step::DeleteRegister { name, stale }),
        4 => nth().prop_map(Step::Carry),
        4 => soon().prop_map(Step::Pass),
        6 => (any::<u8>(), -1..=1_i8).prop_map(|(edge, off)| Step::PassTo { edge, off }),
        1 => Just(Step::Restart),
    ]
}

pub(super) const QUEUES: u8 = 3;
pub(super) const KINDS: u8 = 2;
pub(super) const TAGS: u8 = 2;
pub(super) const WORKERS: u8 = 3;
pub(super) const REGISTERS: u8 = 3;
const KEYS: u8 = 2;

fn job() -> impl Strategy<Value = Job> {
    let place = (any::<u8>(), 0..QUEUES, 0..KINDS, priority(), 0..1_u8 << TAGS);
    let due = prop_oneof![
        4 => Just(JobDue::Said(Due::Now)),
        1 => soon().prop_map(|delay| JobDue::Said(Due::In(delay))),
        1 => soon().prop_map(JobDue::Before),
        1 => Just(JobDue::Said(Due::PARKED)),
    ];
    let keys =
        (weighted(0.4, (0..KEYS, scope(), on_conflict())), weighted(0.3, (0..KEYS, 1..=2_u32, seldom())));
    let bounds = (1..=3_u32, weighted(0.2, lease()), keep());
    (place, due, keys, bounds).prop_map(
        |((number, queue, kind, priority, tags), due, (unique, limit), (max_attempts, lease, keep))| Job {
            number,
            queue,
            kind,
            priority,
            due,
            tags,
            unique,
            limit,
            max_attempts,
            lease,
            keep,
        },
    )
}

fn claim() -> impl Strategy<Value = Claim> {
    let who = (0..WORKERS, prop_oneof![3 => Just(0b111_u8), 1 => 0..1_u8 << QUEUES]);
    let what = (rule(KINDS), rule(TAGS), weighted(0.1, priority()));
    (who, what, 1..=5_usize, lease(), any::<bool>()).prop_map(
        |((worker, queues), (kinds, tags, min_priority), limit, lease, rated)| Claim {
            worker,
            queues,
            kinds,
            tags,
            min_priority,
            limit,
            lease,
            rated,
        },
    )
}

fn rule(of: u8) -> impl Strategy<Value = Rule> {
    prop_oneof![
        6 => Just(Rule::Any),
        1 => (0..1_u8 << of).prop_map(Rule::First),
        1 => (0..1_u8 << of).prop_map(Rule::Second),
    ]
}

fn renewal() -> impl Strategy<Value = Renewal> {
    (nth(), lease(), of(0..100_u64)).prop_map(|(lease, span, progress)| Renewal { lease, span, progress })
}

fn settlement() -> impl Strategy<Value = Settlement> {
    (nth(), verdict(), weighted(0.3, 0..QUEUES), any::<bool>())
        .prop_map(|(lease, verdict, queue, failure)| Settlement { lease, verdict, queue, failure })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        2 => of(any::<u8>()).prop_map(|result| Verdict::Succeed {
            result: result.map(|number| format!("{number}.0").into())
        }),
        1 => Just(Verdict::Fail { reason: Reason::Error }),
        1 => Just(Verdict::Cancel { reason: Reason::Aborted }),
        2 => soon_or_now().prop_map(|delay| Verdict::Retry {
            reason: Reason::Error,
            delay,
            queue: None
        }),
        2 => soon_or_now().prop_map(|delay| Verdict::Release { reason: Reason::Released, delay }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Cancel),
        3 => due().prop_map(Action::Requeue),
        1 => Just(Action::Delete),
        1 => (0..QUEUES).prop_map(Action::Move),
        1 => priority().prop_map(Action::Reprioritise),
        2 => due().prop_map(Action::Postpone),
        1 => Just(Action::Postpone(Due::PARKED)),
        3 => due().prop_map(Action::Unpark),
        2 => Just(Action::CancelParked),
        2 => Just(Action::Withdraw),
        2 => Just(Action::Restore),
        1 => (0_u64..100).prop_map(Action::DeleteEnded),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let states = vec(select(State::ALL.to_vec()), 1..=3);
    (weighted(0.3, 0..QUEUES), weighted(0.4, states), weighted(0.2, 0..KINDS), weighted(0.2, 0..TAGS))
        .prop_map(|(queue, states, kind, tag)| Filter { queue, states, kind, tag })
}

fn scope() -> impl Strategy<Value = UniqueScope> {
    prop_oneof![
        Just(UniqueScope::UntilClaimed),
        Just(UniqueScope::UntilFinished),
        soon().prop_map(UniqueScope::For),
    ]
}

fn on_conflict() -> impl Strategy<Value = OnConflict> {
    prop_oneof![
        2 => Just(OnConflict::Keep),
        1 => Just(OnConflict::Replace),
        1 => soon().prop_map(|at_most| OnConflict::Debounce { at_most }),
    ]
}

fn keep() -> impl Strategy<Value = Keep> {
    prop_oneof![3 => soon().prop_map(Keep::For), 1 => Just(Keep::Forever)]
}

fn due() -> impl Strategy<Value = Due> {
    prop_oneof![Just(Due::Now), soon().prop_map(Due::In)]
}

/// Spans that collide: few, and of whole hundreds of milliseconds.
fn soon() -> impl Strategy<Value = Duration> {
    (1..=20_u64).prop_map(|n| Duration::from_millis(100 * n))
}

fn soon_or_now() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), soon()]
}

fn lease() -> impl Strategy<Value = Duration> {
    (1..=10_u64).prop_map(|n| Duration::from_millis(100 * n))
}

fn priority() -> impl Strategy<Value = i16> {
    -1..=1_i16
}

/// The latest in most cases.
fn nth() -> impl Strategy<Value = Nth> {
    prop_oneof![6 => 0..4_u8, 1 => any::<u8>()]
}

fn seldom() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.2)
}
