//! Histories told by hand: a millisecond passes with each event.

use std::collections::BTreeMap;

use leasehold_core::backend::{Answer, KindRule, TagRule};
use leasehold_core::{ClaimId, JobId, Kind, LeaseToken, QueueName, State, Timestamp, WorkerId};

use crate::history::event::{
    Asked, Attempt, Call, Change, ChangeKind, DueAs, Entry, Event, Extended, Fate, Fault, Granted, Put,
    Reply, Seen, What, Write,
};
use crate::history::{Invariant, Rules, Verdict, check};

/// The lease of every claim in these tales, in milliseconds.
pub(super) const LEASE: u64 = 100;
pub(super) const MAX_ATTEMPTS: u32 = 3;

const MILLI: u64 = 1_000_000;

/// A history under way.
#[derive(Default)]
pub(super) struct Tale {
    pub(super) events: Vec<Event>,
    now: u64,
    ops: u64,
    /// How much later the answer to the next call comes, in milliseconds.
    slow: u64,
    last: usize,
    /// How often each job was taken back from a worker that was gone.
    pub(super) crashes: BTreeMap<JobId, u32>,
    pub(super) rules: Rules,
}

/// A lease in a tale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) job: JobId,
    pub(super) token: LeaseToken,
}

impl Tale {
    pub(super) fn new() -> Self {
        Self { now: 1_000, rules: Rules { drained: true, ..Rules::default() }, ..Self::default() }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, millis: u64) {
        self.now += millis;
    }

    pub(super) fn event(&mut self, p: &str, op: u64, what: What) {
        self.now += 1;
        self.events.push(Event { t: self.now * MILLI, p: p.into(), op, what });
    }

    /// A call, and its answer unless nothing is known of it.
    pub(super) fn call(&mut self, p: &str, call: Call, reply: Option<Reply>) {
        self.ops += 1;
        let op = self.ops;
        self.event(p, op, What::Invoke { call });
        self.now += std::mem::take(&mut self.slow);
        match reply {
            Some(reply) => self.event(p, op, What::Ok { reply }),
            None => self.event(p, op, What::Info { why: "no answer".into() }),
        }
    }

    /// The next call takes so long to be answered.
    pub(super) fn slowly(&mut self, millis: u64) -> &mut Self {
        self.slow = millis;
        self
    }

    pub(super) fn put(job: JobId) -> Put {
        Put {
            job,
            queue: QueueName::default(),
            kind: Kind::new("work").unwrap(),
            priority: 0,
            due: DueAs::In(0),
            max_attempts: MAX_ATTEMPTS,
            payload: 7,
            crash_budget: 3,
            tags: Default::default(),
            unique: None,
            limit: None,
            retention: Default::default(),
        }
    }

    pub(super) fn seen(job: JobId, state: State, attempt: u32) -> Seen {
        let Put { queue, kind, priority, payload, .. } = Self::put(job);
        let due = Timestamp::from_millis(0);
        Seen { job, state, attempt, generation: 0, queue, kind, priority, due, payload, crashes: 0 }
    }

    pub(super) fn enqueue_as(&mut self, put: Put, entry: Option<Entry>) -> JobId {
        let job = put.job;
        let reply = entry.map(|entry| Reply::Enqueue(vec![(job, entry)]));
        self.call("p", Call::Enqueue(vec![put]), reply);
        job
    }

    pub(super) fn enqueue_parked(&mut self) -> JobId {
        let due = DueAs::At(Timestamp::MAX);
        self.enqueue_as(Put { due, ..Self::put(JobId::generate()) }, Some(Entry::Created))
    }

    pub(super) fn enqueue(&mut self) -> JobId {
        self.enqueue_as(Self::put(JobId::generate()), Some(Entry::Created))
    }

    /// A claim by the one worker of these tales.
    pub(super) fn asked(claim: ClaimId, limit: usize) -> Asked {
        let worker = worker();
        let queues = vec![QueueName::default()];
        Asked { claim, worker, limit, queues, kinds: KindRule::Any, tags: TagRule::Any, min_priority: None }
    }

    pub(super) fn grant_as(&mut self, p: &str, claim: ClaimId, given: Option<Seen>) -> Option<LeaseToken> {
        let asked = Self::asked(claim, 1);
        let token = given.as_ref().map(|seen| claim.token(seen.job));
        let started = Some(Timestamp::from_millis(i64::try_from(self.now).unwrap()));
        let reply = given.map(|mut job| {
            job.crashes = self.crashes_of(job.job);
            Reply::Claim(vec![Granted { token: claim.token(job.job), lease: LEASE, started, job }])
        });
        self.call(p, Call::Claim(asked), reply);
        token
    }

    pub(super) fn claim_by(&mut self, p: &str, job: JobId, attempt: u32) -> Lease {
        let seen = Self::seen(job, State::Running, attempt);
        let token = self.grant_as(p, ClaimId::generate(), Some(seen)).unwrap();
        Lease { job, token }
    }

    pub(super) fn claim(&mut self, job: JobId, attempt: u32) -> Lease {
        self.claim_by("w", job, attempt)
    }

    /// An enqueued job and its first lease.
    pub(super) fn held(&mut self) -> Lease {
        let job = self.enqueue();
        self.claim(job, 1)
    }

    fn write(lease: Lease, verdict: &str, span: u64) -> Vec<Write> {
        vec![Write {
            job: lease.job,
            token: lease.token,
            verdict: verdict.into(),
            span,
            queue: None,
            append: None,
        }]
    }

    pub(super) fn settle_after(&mut self, lease: Lease, verdict: &str, delay: u64, answer: Option<Answer>) {
        let reply = answer.map(|answer| Reply::Settle(vec![answer]));
        self.call("w", Call::Settle(Self::write(lease, verdict, delay)), reply);
    }

    pub(super) fn settle(&mut self, lease: Lease, verdict: &str, answer: Answer) {
        self.settle_after(lease, verdict, 0, Some(answer));
    }

    pub(super) fn recover(&mut self, lease: Lease, verdict: &str, answer: Answer) {
        if answer == Answer::Applied {
            *self.crashes.entry(lease.job).or_default() += 1;
        }
        self.call("s", Call::Recover(Self::write(lease, verdict, 0)), Some(Reply::Recover(vec![answer])));
    }

    pub(super) fn renew(&mut self, lease: Lease, answer: Answer) {
        self.renew_told(lease, answer, false);
    }

    /// A renewal that is told whether somebody wants its job cancelled.
    pub(super) fn renew_told(&mut self, lease: Lease, answer: Answer, cancel: bool) {
        let until = Timestamp::from_millis(i64::try_from(self.now + LEASE).unwrap());
        let answer = match answer {
            Answer::Lost => Extended::Lost,
            _ => Extended::Held { until, cancel },
        };
        self.call("w", Call::Renew(Self::write(lease, "", LEASE)), Some(Reply::Renew(vec![answer])));
    }

    pub(super) fn log(&mut self, lease: Lease, answer: Answer) {
        self.call("w", Call::Log(Self::write(lease, "", 0)), Some(Reply::Log(vec![answer])));
    }

    pub(super) fn amend(&mut self, job: JobId, action: ChangeKind) {
        self.amend_as(job, action, Fate::Applied);
    }

    /// An amendment, and what became of it.
    pub(super) fn amend_as(&mut self, job: JobId, action: ChangeKind, fate: Fate) {
        self.amend_so(job, action, false, fate);
    }

    /// An amendment that parks the job or does not, and what became of it.
    pub(super) fn amend_so(&mut self, job: JobId, action: ChangeKind, parks: bool, fate: Fate) {
        let change = Change { action, jobs: Some(vec![job]), queue: None, parks };
        self.call("o", Call::Amend(change), Some(Reply::Amend(vec![(job, fate)])));
    }

    /// A call whose answer says nothing.
    pub(super) fn does(&mut self, p: &str, call: Call) {
        self.call(p, call, Some(Reply::Other));
    }

    /// One claim that is given several jobs in this order.
    pub(super) fn claim_all(&mut self, jobs: &[Seen]) -> Vec<Lease> {
        let claim = ClaimId::generate();
        let started = Some(Timestamp::from_millis(i64::try_from(self.now).unwrap()));
        let given =
            |job: &Seen| Granted { token: claim.token(job.job), lease: LEASE, started, job: job.clone() };
        let reply = Reply::Claim(jobs.iter().map(given).collect());
        self.call("w", Call::Claim(Self::asked(claim, jobs.len())), Some(reply));
        jobs.iter().map(|job| Lease { job: job.job, token: claim.token(job.job) }).collect()
    }

    pub(super) fn look(&mut self, seen: Seen) {
        self.call("o", Call::Look, Some(Reply::Look(vec![seen])));
    }

    pub(super) fn start(&mut self, p: &str, lease: Lease) {
        self.event(p, 0, What::Start(Attempt { job: lease.job, token: lease.token }));
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.event("nemesis", 0, What::Fault(fault));
    }

    pub(super) fn last(&mut self, job: JobId, state: State) {
        self.last_as(Self::seen(job, state, 1));
    }

    fn crashes_of(&self, job: JobId) -> u32 {
        self.crashes.get(&job).copied().unwrap_or(0)
    }

    pub(super) fn last_as(&mut self, mut seen: Seen) {
        seen.crashes = self.crashes_of(seen.job);
        self.last += 1;
        self.event("o", 0, What::Last(seen));
    }

    /// The lease is settled well, and so it stands at the end.
    pub(super) fn ends_well(&mut self, lease: Lease) {
        self.settle(lease, "succeed", Answer::Applied);
        self.last(lease.job, State::Succeeded);
    }

    /// Judges the tale as one that was drained and looked at in the end.
    pub(super) fn verdict(mut self) -> Verdict {
        let jobs = self.last;
        self.event("o", 0, What::LastOfAll { jobs });
        check(&self.events, &self.rules)
    }

    /// Fails unless nothing is found.
    pub(super) fn passes(self) {
        let verdict = self.verdict();
        assert!(verdict.is_valid(), "{verdict}");
    }

    /// Fails unless this and nothing else is found, and the history itself is in order.
    pub(super) fn breaks(self, invariants: &[Invariant]) {
        let verdict = self.verdict();
        assert_eq!(verdict.harness, Vec::<String>::new());
        // The second opinion may find the same.
        let found: Vec<Invariant> =
            verdict.broken().into_keys().filter(|found| *found != Invariant::Linear).collect();
        assert_eq!(found, invariants, "{verdict}");
    }
}

/// Tells a tale twice: with its flaw it breaks these invariants and no other, and without it none.
pub(super) fn flawed(invariants: &[Invariant], tell: impl Fn(&mut Tale, bool)) {
    let (mut bad, mut good) = (Tale::new(), Tale::new());
    tell(&mut bad, true);
    tell(&mut good, false);
    bad.breaks(invariants);
    good.passes();
}

/// The one worker of these tales.
pub(super) fn worker() -> WorkerId {
    "00000000-0000-7000-8000-000000000001".parse().unwrap()
}
