use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::log::Unwritten;
use crate::flow::Member;
use crate::id::{JobId, LeaseToken};
use crate::job::{LeasedJob, Progress};
use crate::policy::{LeaseTimes, Outcome};

/// How long progress waits, so that many reports make one write.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// Why a handler is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The store says so, or the lease could not be renewed in time: nothing may be written any more.
    LeaseLost,
    /// Somebody asked to cancel the job.
    CancelRequested,
    /// It has run for as long as it may.
    TimedOut,
    /// The worker stops and its grace is over.
    Stopping,
}

/// One lease that this worker holds, from its claim to the answer of its settlement.
pub(super) struct Entry {
    pub(super) job: JobId,
    pub(super) token: LeaseToken,
    pub(super) lease: Duration,
    /// Its place in a flow, if it is of one.
    pub(super) member: Option<Member>,
    /// Whether somebody sent it round again.
    pub(super) is_again: bool,
    /// How many log lines were written under this lease.
    pub(super) lines: AtomicU64,
    /// How many of them the store has not answered to.
    pub(super) unwritten: Unwritten,
    /// How many were dropped since the last that was written.
    pub(super) dropped_lines: AtomicU64,
    /// When its holder does what.
    pub(super) times: LeaseTimes,
    live: Mutex<Live>,
    /// Told when there is a cause or a decision, when the store has answered to what the handler said, and when the lease
    /// was renewed.
    news: Notify,
    changed: Arc<Notify>,
}

struct Live {
    /// When the claim or the latest successful renewal was asked for.
    asked_at: Instant,
    /// What the handler said last, or an earlier attempt.
    latest: Progress,
    /// What of it the store has.
    kept: Progress,
    /// What of it is to be written.
    progress: Option<Progress>,
    /// From when on the progress is to be written.
    progress_at: Instant,
    /// How often something was said.
    said: u64,
    /// What was said up to then has been written.
    written: u64,
    /// What was said up to then has been written or refused.
    answered: u64,
    cause: Option<Cause>,
    decision: Option<Outcome>,
    settling: bool,
    renewal: Renewal,
    /// With how many it may be renewed in one call.
    together: usize,
}

/// Where an entry's renewal stands.
enum Renewal {
    /// None is under way; the next one is not asked for before this moment.
    NotBefore(Instant),
    /// One is under way.
    Asked,
    /// There is nothing to renew any more.
    Over,
}

impl Entry {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is as asked.
    async fn until<T>(&self, is: impl Fn(&Live) -> Option<T>) -> T {
        loop {
            let news = self.news.notified();
            if let Some(found) = is(&self.live()) {
                return found;
            }
            news.await;
        }
    }

    /// Why the handler was told to end, if it was; a lost lease outweighs the rest.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.live().cause
    }

    /// Tells the handler to end.
    pub(super) fn cancel(&self, cause: Cause) {
        let mut live = self.live();
        if live.cause.is_none() || cause == Cause::LeaseLost {
            live.cause = Some(cause);
        }
        drop(live);
        self.news.notify_waiters();
    }

    /// Waits until the handler is told to end.
    pub(super) async fn cancelled(&self) {
        self.until(|live| live.cause).await;
    }

    /// Waits until the lease is lost, whatever the handler was told before.
    pub(super) async fn lost(&self) {
        self.until(|live| live.is_lost().then_some(())).await;
    }

    /// Decides how the attempt ends, unless that is decided.
    pub(super) fn decide(&self, how: Outcome) {
        self.live().decision.get_or_insert(how);
        self.news.notify_waiters();
    }

    /// How it was decided that the attempt ends, if it was.
    pub(super) fn decision(&self) -> Option<Outcome> {
        self.live().decision.take()
    }

    /// Waits until it is decided how the attempt ends.
    pub(super) async fn decided(&self) {
        self.until(|live| live.decision.as_ref().map(|_| ())).await;
    }

    /// Loses the lease if it could not be renewed in time, by our own clock alone (clause C2a). One that is
    /// being settled is no handler's any more, and its store still takes the settlement (C2).
    pub(super) fn fence(&self) {
        let fence_at = self.live().fence_at(&self.times);
        if fence_at.is_some_and(|at| at <= Instant::now()) {
            tracing::warn!(job = %self.job, "the lease could not be renewed in time; its handler is stopped");
            self.cancel(Cause::LeaseLost);
        }
    }

    /// Notes that its settlement is on the way: a renewal that comes back lost then means nothing.
    pub(super) fn settle(&self) {
        self.live().settling = true;
    }

    pub(super) fn is_settling(&self) -> bool {
        self.live().settling
    }

    /// Notes how far the job has come. A cursor stays until there is another.
    pub(super) fn report(&self, progress: Progress) {
        let mut live = self.live();
        let cursor = progress.cursor.or_else(|| live.latest.cursor.take());
        live.latest = Progress { cursor, ..progress };
        live.said += 1;
        // Only the first of many reports starts the clock, so that they make one write.
        let first = live.progress.is_none();
        live.progress = Some(live.latest.clone());
        if first {
            live.progress_at = Instant::now() + PROGRESS_PAUSE;
        }
        drop(live);
        if first {
            self.changed.notify_one();
        }
    }

    /// Where a later attempt is to go on.
    pub(super) fn cursor(&self) -> Option<String> {
        self.live().latest.cursor.clone()
    }

    /// Notes where a later attempt is to go on, to be written at once, and waits until it is. Answers whether it is.
    pub(super) async fn save_cursor(&self, cursor: String) -> bool {
        let latest = self.live().latest.clone();
        self.report(Progress { cursor: Some(cursor), ..latest });
        let said = {
            let mut live = self.live();
            live.progress_at = Instant::now();
            live.said
        };
        self.changed.notify_one();
        let is_over = |live: &Live| live.answered >= said || live.is_lost();
        self.until(|live| is_over(live).then_some(live.written >= said)).await
    }

    /// Takes what is to be written, and up to where that is what was said.
    pub(super) fn take_progress(&self) -> Option<(Progress, u64)> {
        let mut live = self.live();
        let said = live.said;
        live.progress.take().map(|progress| (progress, said))
    }

    /// Notes that the store has answered to what was said up to there: it has this, or has refused it.
    pub(super) fn answered(&self, said: u64, written: Option<Progress>) {
        let mut live = self.live();
        live.answered = live.answered.max(said);
        match written {
            Some(progress) => (live.written, live.kept) = (live.written.max(said), progress),
            // What it refuses must not spoil what is said next.
            None if live.said == said => live.latest = live.kept.clone(),
            None => {}
        }
        drop(live);
        self.news.notify_waiters();
    }

    pub(super) fn has_progress(&self) -> bool {
        self.live().progress.is_some()
    }

    /// Keeps progress that could not be written, unless there is newer.
    pub(super) fn keep_progress(&self, progress: Option<Progress>) {
        let mut live = self.live();
        live.progress = live.progress.take().or(progress);
    }

    /// Notes that a renewal is under way.
    pub(super) fn renewing(&self) {
        self.live().renewal = Renewal::Asked;
    }

    /// Notes that the lease was renewed by a call that began at `asked_at`.
    pub(super) fn renewed(&self, asked_at: Instant) {
        let mut live = self.live();
        live.asked_at = asked_at;
        live.renewal = Renewal::NotBefore(asked_at);
        live.together = usize::MAX;
        drop(live);
        self.news.notify_waiters();
    }

    /// Notes that a renewal failed: it is asked for again after a pause that even a short lease can afford.
    pub(super) fn not_renewed(&self) {
        let pause = PROGRESS_PAUSE.min(self.lease / 20);
        self.live().renewal = Renewal::NotBefore(Instant::now() + pause);
    }

    /// Notes that a renewal of so many was not answered: one of them may be what it hangs at, and must not cost the others
    /// their leases. So the next calls are of fewer.
    pub(super) fn not_answered(&self, of: usize) {
        self.live().together = fewer(of);
    }

    /// With how many it may be renewed in one call.
    pub(super) fn together(&self) -> usize {
        self.live().together
    }

    /// Notes that there is nothing to renew any more.
    pub(super) fn over(&self) {
        self.live().renewal = Renewal::Over;
    }

    /// When it is next to be renewed or written to; never while that is under way, or when all is over.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.live().renew_at(&self.times)
    }

    /// Until when what cannot be dropped may go on: halfway from the fence to the end of the lease.
    #[cfg(all(unix, feature = "process"))]
    pub(super) fn lives_until(&self) -> Instant {
        self.live().asked_at + self.life()
    }

    /// Waits until that is later than it was, by a renewal, and tells when it is.
    #[cfg(all(unix, feature = "process"))]
    pub(super) async fn lives_beyond(&self, end: Instant) -> Instant {
        self.until(|live| Some(live.asked_at + self.life()).filter(|at| *at > end)).await
    }

    #[cfg(all(unix, feature = "process"))]
    fn life(&self) -> Duration {
        self.times.fence + (self.lease - self.times.fence) / 2
    }

    pub(super) fn fence_at(&self) -> Instant {
        self.live().asked_at + self.times.fence
    }

    /// When the heartbeat has to look at it again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let live = self.live();
        live.renew_at(&self.times).into_iter().chain(live.fence_at(&self.times)).min()
    }
}

impl Live {
    fn is_lost(&self) -> bool {
        self.cause == Some(Cause::LeaseLost)
    }

    fn renew_at(&self, times: &LeaseTimes) -> Option<Instant> {
        let Renewal::NotBefore(earliest) = self.renewal else { return None };
        if self.is_lost() {
            return None;
        }
        let renew_at = self.asked_at + times.renew;
        let at = if self.progress.is_some() { renew_at.min(self.progress_at) } else { renew_at };
        Some(at.max(earliest))
    }

    /// When it is fenced, if a handler still has it.
    fn fence_at(&self, times: &LeaseTimes) -> Option<Instant> {
        (!self.settling && !self.is_lost()).then(|| self.asked_at + times.fence)
    }
}

/// How many go into one call when one of so many was not answered. Of a thousand, that at which it hangs is alone at the
/// third call, before the leases of the others are over.
pub(super) fn fewer(of: usize) -> usize {
    of.div_ceil(32)
}

/// All leases that this worker holds.
#[derive(Default)]
pub(super) struct Held {
    entries: Mutex<HashMap<LeaseToken, Arc<Entry>>>,
    /// When the heartbeat looks at them next, unless it is to plan anew.
    look_at: Mutex<Option<Instant>>,
    /// Told when one is to be looked at before that, or has progress to write: the heartbeat plans anew.
    pub(super) changed: Arc<Notify>,
    /// Told when entries go.
    pub(super) gone: Notify,
}

impl Held {
    fn entries(&self) -> MutexGuard<'_, HashMap<LeaseToken, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the jobs that a claim which began at `asked_at` got.
    pub(super) fn add(&self, leased: &[LeasedJob], asked_at: Instant) -> Vec<Arc<Entry>> {
        let added: Vec<_> = leased.iter().map(|leased| self.entry(leased, asked_at)).collect();
        self.entries().extend(added.iter().map(|entry| (entry.token, entry.clone())));
        let look_at = added.iter().filter_map(|entry| entry.look_at()).min();
        if look_at.is_some_and(|at| self.plan().is_none_or(|planned| at < planned)) {
            self.changed.notify_one();
        }
        added
    }

    /// When the heartbeat looks at the entries next. None while it finds that out: what comes then is told.
    pub(super) fn plan(&self) -> MutexGuard<'_, Option<Instant>> {
        self.look_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, leased: &LeasedJob, asked_at: Instant) -> Arc<Entry> {
        Arc::new(Entry {
            job: leased.job.id,
            token: leased.token,
            lease: leased.lease,
            member: Member::of(&leased.job),
            is_again: leased.job.generation > 0,
            lines: AtomicU64::new(0),
            unwritten: Unwritten::default(),
            dropped_lines: AtomicU64::new(0),
            times: LeaseTimes::of(leased.lease),
            news: Notify::new(),
            live: Mutex::new(Live {
                asked_at,
                latest: leased.job.progress.clone().unwrap_or_default(),
                kept: leased.job.progress.clone().unwrap_or_default(),
                progress: None,
                progress_at: asked_at,
                said: 0,
                written: 0,
                answered: 0,
                cause: None,
                decision: None,
                settling: false,
                renewal: Renewal::NotBefore(asked_at),
                together: usize::MAX,
            }),
            changed: self.changed.clone(),
        })
    }

    pub(super) fn remove<'a>(&self, gone: impl IntoIterator<Item = &'a Arc<Entry>>) {
        let mut entries = self.entries();
        gone.into_iter().for_each(|entry| drop(entries.remove(&entry.token)));
        drop(entries);
        self.gone.notify_waiters();
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }
}

impl Entry {
    /// Numbers `count` log lines; returns the first number.
    pub(super) fn number_lines(&self, count: u64) -> u64 {
        self.lines.fetch_add(count, Ordering::Relaxed)
    }
}
