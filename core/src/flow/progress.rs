use std::collections::BTreeSet;

use super::dependents::Dependents;
use super::plan::{Plan, Span};
use super::record::FlowCounts;
use crate::backend::Verdict;
use crate::job::State;

/// What is known of a job of a flow. To have ended well lasts; to have ended otherwise may be undone by a requeue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Known {
    /// Nothing, or that it has not ended.
    #[default]
    Open,
    Succeeded,
    Failed,
    /// Also if it is there no more.
    Cancelled,
}

impl Known {
    pub(crate) fn of(state: State) -> Self {
        match state {
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Scheduled | State::Queued | State::Running => Self::Open,
        }
    }

    /// What a settlement ends a job as, if it ends it.
    pub(crate) fn by(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Succeed { .. } => Some(Self::Succeeded),
            Verdict::Fail { .. } => Some(Self::Failed),
            Verdict::Cancel { .. } => Some(Self::Cancelled),
            Verdict::Retry { .. } | Verdict::Release { .. } => None,
        }
    }
}

/// What is to be done with the jobs of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing any more.
    Done,
    /// Nothing before this job has ended, or was sent round again and ended well.
    Wait(u32),
    /// They may run.
    LetGo,
    /// They never will.
    Cancel,
}

/// How far a flow has come, as far as this process knows: what may be let go, and what is to be cancelled.
///
/// Behind the rows of the plan stands one without jobs that waits for the end of all: [`last`](Self::last).
#[derive(Debug)]
pub(crate) struct Progress {
    plan: Plan,
    dependents: Dependents,
    known: Vec<Known>,
    rows: Vec<Reached>,
    counts: FlowCounts,
}

/// How far it is known that what a row waits for has ended.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    done: bool,
    /// Whether a job that is to succeed before did not.
    doomed: bool,
    link: usize,
    /// How many of the link's jobs.
    jobs: u32,
}

impl Progress {
    /// Nothing is known yet.
    pub(crate) fn new(plan: Plan) -> Self {
        let dependents = Dependents::of(&plan);
        let (known, rows) =
            (vec![Known::Open; plan.size() as usize], vec![Reached::default(); plan.rows().len() + 1]);
        let counts = FlowCounts::new(plan.size());
        Self { plan, dependents, known, rows, counts }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let rows = size_of::<Reached>() + size_of::<super::plan::Row>();
        self.known.len() + self.rows.len() * rows + self.dependents.bytes()
    }

    /// How many jobs have ended, and how.
    pub(crate) fn counts(&self) -> FlowCounts {
        self.counts
    }

    /// The row that waits for the end of all.
    pub(crate) fn last(&self) -> usize {
        self.rows.len() - 1
    }

    /// All rows that something is left to do with.
    pub(crate) fn undone(&self) -> BTreeSet<usize> {
        (0..self.rows.len()).filter(|row| !self.rows[*row].done).collect()
    }

    pub(crate) fn known(&self, job: u32) -> Known {
        self.known.get(job as usize).copied().unwrap_or_default()
    }

    /// The jobs that ended otherwise than well.
    pub(crate) fn unwell(&self) -> Vec<u32> {
        (0..self.plan.size()).filter(|job| is_unwell(self.known(*job))).collect()
    }

    /// Of the jobs of a row, those that are not known to have ended.
    pub(crate) fn open(&self, row: usize) -> Vec<u32> {
        self.plan.members(row).filter(|job| self.known(*job) == Known::Open).collect()
    }

    /// Notes that nothing is left to do with a row.
    pub(crate) fn done(&mut self, row: usize) {
        self.rows[row].done = true;
    }

    /// Notes that a job was seen parked, and names its row if that was taken for done: somebody parked the job again, or the
    /// store lost what it was told last.
    pub(crate) fn parked(&mut self, job: u32, touched: &mut BTreeSet<usize>) {
        let row = self.plan.row_of(job);
        if self.rows[row].done {
            self.rows[row] = Reached::default();
            touched.insert(row);
        }
    }

    /// Notes what became of a job, and names the rows that are to be decided about.
    pub(crate) fn note(&mut self, job: u32, known: Known, touched: &mut BTreeSet<usize>) {
        let Some(was) = self.known.get_mut(job as usize) else { return };
        let was = std::mem::replace(was, known);
        if was == known {
            return;
        }
        self.counts.count(was, known);
        if is_unwell(was) {
            let last = self.last();
            self.rows[last] = Reached::default();
        }
        let (rows, plan, mut leads_on) = (&mut self.rows, &self.plan, false);
        self.dependents.each(job, &mut |row, succeeds| {
            let reached = &mut rows[row];
            if reached.done {
                return;
            }
            leads_on = true;
            touched.insert(row);
            if is_unwell(was) {
                // What was concluded from it is no longer so.
                *reached = Reached::default();
            }
            reached.doomed |= succeeds && is_unwell(known) && !plan.rows()[row].waits;
        });
        // While somebody waits for it the flow goes on anyway.
        if !leads_on {
            touched.insert(self.rows.len() - 1);
        }
    }

    /// What is to be done with the jobs of a row.
    pub(crate) fn decide(&mut self, row: usize) -> Decision {
        let mut reached = self.rows[row];
        if reached.done {
            return Decision::Done;
        }
        if reached.doomed {
            return Decision::Cancel;
        }
        let mut decision = Decision::LetGo;
        'links: while let Some(((from, to), succeeds)) = self.link(row, reached.link) {
            while from + reached.jobs < to {
                let job = from + reached.jobs;
                match self.known(job) {
                    Known::Succeeded => {}
                    Known::Failed | Known::Cancelled if !succeeds => {}
                    Known::Failed | Known::Cancelled if !self.waits(row) => {
                        reached.doomed = true;
                        decision = Decision::Cancel;
                        break 'links;
                    }
                    Known::Failed | Known::Cancelled | Known::Open => {
                        decision = Decision::Wait(job);
                        break 'links;
                    }
                }
                reached.jobs += 1;
            }
            (reached.link, reached.jobs) = (reached.link + 1, 0);
        }
        self.rows[row] = reached;
        decision
    }

    /// Up to so many jobs that a row waits for, from where it stands on, and that are not known to have ended well enough.
    pub(crate) fn ahead(&self, row: usize, most: usize) -> Vec<u32> {
        let reached = self.rows[row];
        let links = (reached.link..).map_while(|number| self.link(row, number));
        let jobs = links.enumerate().flat_map(|(nth, ((from, to), succeeds))| {
            let skip = if nth == 0 { reached.jobs } else { 0 };
            (from + skip..to).map(move |job| (job, succeeds))
        });
        let left = |(job, succeeds): &(u32, bool)| match self.known(*job) {
            Known::Open => true,
            Known::Succeeded => false,
            Known::Failed | Known::Cancelled => *succeeds,
        };
        jobs.filter(left).map(|(job, _)| job).take(most).collect()
    }

    /// Adds the rows that are doomed once these are cancelled, but for those of their jobs that were freed.
    pub(crate) fn spread(&self, rows: &mut BTreeSet<usize>, freed: &BTreeSet<u32>) {
        let mut new: Vec<usize> = rows.iter().copied().collect();
        let falls = |job: &u32| self.known(*job) != Known::Succeeded && !freed.contains(job);
        while let Some(row) = new.pop() {
            for job in self.plan.members(row).filter(falls) {
                self.dependents.each(job, &mut |row, succeeds| {
                    if succeeds && !self.rows[row].done && !self.waits(row) && rows.insert(row) {
                        new.push(row);
                    }
                });
            }
        }
    }

    /// Whether a row falls if one of these jobs, in their order, did not succeed.
    pub(super) fn may_fall(&self, row: usize, jobs: &[u32]) -> bool {
        let after = self.plan.rows().get(row).filter(|row| !row.waits).map_or(&[][..], |row| &row.after);
        after
            .iter()
            .any(|(from, to)| jobs.get(jobs.partition_point(|job| job < from)).is_some_and(|job| job < to))
    }

    fn waits(&self, row: usize) -> bool {
        self.plan.rows().get(row).is_some_and(|row| row.waits)
    }

    fn link(&self, row: usize, number: usize) -> Option<(Span, bool)> {
        match self.plan.rows().get(row) {
            Some(row) => row.link(number),
            None => (number == 0).then_some(((0, self.plan.size()), false)),
        }
    }
}

fn is_unwell(known: Known) -> bool {
    matches!(known, Known::Failed | Known::Cancelled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plan::{Row, normal};
    use super::super::survey::Survey;
    use super::*;

    /// How a job ends if it runs.
    const ENDS: [Known; 3] = [Known::Succeeded, Known::Failed, Known::Cancelled];

    fn plans() -> impl Strategy<Value = Plan> {
        let spans = || prop::collection::vec((0_u32..100, 1_u32..8), 0..3);
        let row = (1_u32..5, spans(), spans(), any::<bool>(), prop::bool::weighted(0.2));
        prop::collection::vec(row, 1..12).prop_map(|rows| {
            let mut plan = Plan::default();
            for (jobs, after, after_end, waits, free) in rows {
                let size = plan.size();
                let within = |spans: Vec<(u32, u32)>| match size {
                    0 => Vec::new(),
                    _ if free => Vec::new(),
                    _ => normal(
                        spans.into_iter().map(|(at, len)| (at % size, (at % size + len).min(size))).collect(),
                    ),
                };
                let (after, after_end) = (within(after), within(after_end));
                plan.push(Row { jobs, after, after_end, waits, ..Row::default() }).unwrap();
            }
            plan
        })
    }

    /// What becomes of each job where each that runs ends so: none of one that waits for ever. By the words of the contract,
    /// one job at a time.
    fn naive(plan: &Plan, ends: &[Known]) -> Vec<Option<Known>> {
        let mut all: Vec<Option<Known>> = Vec::new();
        for job in 0..plan.size() {
            let row = &plan.rows()[plan.row_of(job)];
            let of = |spans: &[Span]| {
                spans
                    .iter()
                    .flat_map(|(from, to)| *from..*to)
                    .map(|job| all[job as usize])
                    .collect::<Vec<_>>()
            };
            let (after, after_end) = (of(&row.after), of(&row.after_end));
            let ended = after.iter().chain(&after_end).all(Option::is_some);
            let well = after.iter().all(|parent| *parent == Some(Known::Succeeded));
            let doomed = after.iter().any(|parent| parent.is_some_and(is_unwell));
            all.push(match (ended && well, doomed && !row.waits) {
                (true, _) => Some(ends[job as usize]),
                (false, true) => Some(Known::Cancelled),
                (false, false) => None,
            });
        }
        all
    }

    /// Plays a flow to its end: jobs that were let go end in any order, and several drivers each hear of some ends, decide
    /// about what these touch, and look at what they wait for.
    fn play(plan: &Plan, ends: &[Known], dice: &mut fastrand::Rng, heard: f64) -> Vec<Option<Known>> {
        let size = plan.size() as usize;
        let (mut truth, mut running) = (vec![None; size], vec![false; size]);
        let mut drivers: Vec<Progress> = (0..3).map(|_| Progress::new(plan.clone())).collect();
        let touched = drivers[0].undone();
        drive(&mut drivers[0], touched, &mut truth, &mut running);
        loop {
            let open: Vec<usize> = (0..size).filter(|job| running[*job] && truth[*job].is_none()).collect();
            if let Some(job) = dice.choice(&open).copied() {
                truth[job] = Some(ends[job]);
                let driver = dice.usize(0..drivers.len());
                if dice.f64() < heard {
                    let mut touched = BTreeSet::new();
                    drivers[driver].note(job as u32, ends[job], &mut touched);
                    drive(&mut drivers[driver], touched, &mut truth, &mut running);
                }
                continue;
            }
            let before = truth.clone();
            let all = (truth.clone(), running.clone());
            // Nothing runs any more: somebody looks at all, as from time to time.
            let driver = dice.choose_multiple(0..drivers.len(), 1)[0];
            look_at_all(&mut drivers[driver], &truth, &running);
            let touched = drivers[driver].undone();
            drive(&mut drivers[driver], touched, &mut truth, &mut running);
            if (&truth, &running) == (&all.0, &all.1) && truth == before {
                let over = truth.iter().all(Option::is_some);
                let last = drivers[driver].last();
                assert_eq!(drivers[driver].decide(last) == Decision::LetGo, over);
                return truth;
            }
        }
    }

    fn look_at_all(progress: &mut Progress, truth: &[Option<Known>], running: &[bool]) {
        let (mut survey, mut touched) = (Survey::of(progress), BTreeSet::new());
        let mut looked = BTreeSet::new();
        loop {
            let jobs = survey.next(progress, 3);
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                assert!(looked.insert(job), "job {job} was looked at twice");
                match truth[job as usize] {
                    Some(known) => progress.note(job, known, &mut touched),
                    None => survey.blocks(job),
                }
            }
        }
        for (job, truth) in (0_u32..).zip(truth).filter(|(job, _)| running[*job as usize]) {
            let known = progress.known(job);
            assert_eq!(truth.unwrap_or_default(), known, "job {job} has run, and was not looked at");
        }
    }

    fn drive(
        progress: &mut Progress,
        mut touched: BTreeSet<usize>,
        truth: &mut [Option<Known>],
        running: &mut [bool],
    ) {
        let mut looked = BTreeSet::new();
        while let Some(row) = touched.pop_first() {
            match progress.decide(row) {
                Decision::Done => {}
                Decision::LetGo => {
                    for job in progress.plan().members(row) {
                        running[job as usize] |= truth[job as usize].is_none();
                    }
                    if row != progress.last() {
                        progress.done(row);
                    }
                }
                Decision::Cancel => {
                    let mut rows = BTreeSet::from([row]);
                    progress.spread(&mut rows, &BTreeSet::new());
                    for row in rows {
                        for job in progress.plan().members(row) {
                            assert!(!running[job as usize], "job {job} was cancelled, and let go before");
                            truth[job as usize] = Some(Known::Cancelled);
                            progress.note(job, Known::Cancelled, &mut touched);
                        }
                        progress.done(row);
                    }
                }
                Decision::Wait(job) => {
                    assert_eq!(progress.ahead(row, 1), [job]);
                    if looked.insert((row, job))
                        && let Some(known) = truth[job as usize]
                    {
                        progress.note(job, known, &mut touched);
                        touched.insert(row);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn each_job_runs_if_and_only_if_its_condition_holds(
            plan in plans(),
            ends in prop::collection::vec(prop::sample::select(&ENDS[..]), 60),
            seed in any::<u64>(),
            heard in prop::sample::select(vec![0.0, 0.5, 1.0]),
        ) {
            let mut dice = fastrand::Rng::with_seed(seed);
            prop_assert_eq!(play(&plan, &ends, &mut dice, heard), naive(&plan, &ends));
        }

        #[test]
        fn who_depends_on_a_job_is_found(plan in plans()) {
            let dependents = Dependents::of(&plan);
            for job in 0..plan.size() {
                let mut found = Vec::new();
                dependents.each(job, &mut |row, succeeds| found.push((row, succeeds)));
                let depends = |((from, to), _): &(Span, bool)| (*from..*to).contains(&job);
                let mut expected: Vec<_> = plan
                    .rows()
                    .iter()
                    .enumerate()
                    .flat_map(|(row, of)| of.links().filter(depends).map(move |(_, succeeds)| (row, succeeds)))
                    .collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn what_ran_is_looked_at_though_it_stands_behind_one_that_waits_for_ever() {
        let mut plan = Plan::default();
        let on = |after: &[Span], after_end: &[Span], waits| Row {
            jobs: 1,
            after: after.to_vec(),
            after_end: after_end.to_vec(),
            waits,
            ..Row::default()
        };
        // The second waits for ever; so does the fourth, but was cancelled for the third, and then the fifth ran.
        for row in [
            on(&[], &[], false),
            on(&[(0, 1)], &[], true),
            on(&[], &[], false),
            on(&[(1, 3)], &[], false),
            on(&[], &[(3, 4)], false),
        ] {
            plan.push(row).unwrap();
        }
        let truth =
            [Some(Known::Failed), None, Some(Known::Failed), Some(Known::Cancelled), Some(Known::Succeeded)];
        for known in [vec![], vec![0], vec![0, 2]] {
            let mut progress = Progress::new(plan.clone());
            for job in known {
                progress.note(job, truth[job as usize].unwrap_or_default(), &mut BTreeSet::new());
            }
            look_at_all(&mut progress, &truth, &[true, false, true, false, true]);
        }
    }

    #[test]
    fn what_was_concluded_from_a_failure_is_undone_when_it_is_mended() {
        let mut plan = Plan::default();
        plan.push(Row { jobs: 2, ..Row::default() }).unwrap();
        plan.push(Row { jobs: 1, after: vec![(0, 2)], ..Row::default() }).unwrap();
        let (mut progress, mut touched) = (Progress::new(plan), BTreeSet::new());
        progress.done(0);
        progress.note(1, Known::Failed, &mut touched);
        assert_eq!((progress.decide(1), touched.contains(&1)), (Decision::Cancel, true));
        progress.note(1, Known::Succeeded, &mut touched);
        assert_eq!(progress.decide(1), Decision::Wait(0));
        progress.note(0, Known::Succeeded, &mut touched);
        assert_eq!(progress.decide(1), Decision::LetGo);
        assert_eq!((progress.counts().succeeded, progress.counts().open), (2, 1));
    }
}
