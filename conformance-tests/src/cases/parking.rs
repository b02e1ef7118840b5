//! P7: jobs that wait for a word rather than for an hour.

use std::collections::BTreeMap;

use leasehold_core::backend::{Action, Amend, AmendAnswer, Claim, Filter, Select};
use leasehold_core::{ClaimId, Due, JobId, JobRecord, Keep, NewJob, Reason, State, Timestamp, UniqueScope};

use crate::bench::{
    Bench, FAIL, RELEASE, SUCCEED, in_time, job, jobs, limit_key, queue, retry_in, secs, unique_key,
};
use crate::breach::{Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// A parked job is never given out, whatever the hour and its priority, and holds up nothing; it counts as scheduled.
    [P7, C6, C9] never_gives_out_a_parked_job;
    /// While only parked jobs are left, no claim is told to wait until the end of all time.
    [P7] tells_nobody_to_wait_for_a_parked_job;
    /// An unparked job is given out once its time has come, once, in its place, and reads as if it had just been enqueued.
    [P7, C6, C8] gives_out_an_unparked_job_once;
    /// Nothing changes when somebody unparks a job that is not parked: one that is due, that waits for its time or for its
    /// retry, that runs or that has ended.
    [P7, S1, S3] unparks_nothing_but_what_is_parked;
    /// A parked job is cancelled for its reason, frees its unique key and is kept like every cancelled one.
    [P7, S5, P4, F5] cancels_a_parked_job_for_its_reason;
    /// Whoever cancels a job only if it is parked ends none that was unparked, waits for its retry, runs or has ended.
    [P7, S1, S5] cancels_parked_jobs_and_no_others;
    /// What an operator does to a waiting job can be done to a parked one, and an operator can park one.
    [P7, S1] lets_operators_park_and_change_parked_jobs;
    /// A newcomer that replaces a parked job says when it is due; one that is parked parks what it replaces.
    [P7, P4] parks_as_a_replacing_newcomer_says;
    /// Of 16 that unpark jobs and cancel them if they are parked, while others claim, one decides for each job, and all
    /// are told so.
    [P7, S2] lets_one_of_racing_words_decide;
    /// Ten thousand are unparked or cancelled by one call, and each is answered.
    [P7, C11] frees_ten_thousand_at_once;
    /// A preview of both answers the same and changes nothing.
    [P7, F4] changes_no_parked_job_in_a_preview;
}

const UNPARK: Action = Action::Unpark { due: Due::Now };

async fn given(t: &Bench, limit: usize) -> Done<Vec<JobId>> {
    Ok(t.claim(limit).await?.iter().map(|lease| lease.job.id).collect())
}

async fn never_gives_out_a_parked_job(t: Bench) -> Kept {
    let parked = t
        .add_all([
            job().priority(9).parked(),
            job().priority(9).limit(limit_key("k"), 1).parked(),
            job().priority(9).limit_or_end(limit_key("k"), 1).parked(),
        ])
        .await?;
    let others = [job(), job().delay(secs(5)), job().limit(limit_key("k"), 1)];
    let others = t.add_all(others).await?;
    must_eq!(given(&t, 9).await?, [others[0], others[2]]);
    t.advance(secs(5));
    must_eq!(given(&t, 9).await?, [others[1]]);
    let year = secs(365 * 86_400);
    for hop in [secs(60), secs(86_400), year, 100 * year, 1_000 * year] {
        t.advance(hop);
        must_eq!(given(&t, 9).await?, [], "{hop:?} later");
        let counts = t.counts().await?;
        must_eq!((counts.of(State::Scheduled), counts.of(State::Queued)), (3, 0), "{hop:?} later");
        must_eq!(counts.oldest_due, None, "{hop:?} later");
    }
    for id in parked {
        let seen = t.find(id).await?;
        must!(seen.is_parked(), "{seen:?}");
        must_eq!((seen.state, seen.due, seen.reason), (State::Scheduled, Timestamp::MAX, None));
    }
    Ok(())
}

async fn tells_nobody_to_wait_for_a_parked_job(t: Bench) -> Kept {
    let next = async |t: &Bench| {
        let claim = Claim { id: ClaimId::generate(), ..t.asking(9) };
        Ok::<_, Trouble>(t.backend().claim(in_time(0), claim).await?.next_due)
    };
    let ids = t.add_all([job().parked(), job().parked().priority(1).limit(limit_key("k"), 1)]).await?;
    must_eq!(next(&t).await?, None, "of parked jobs alone");
    must!(t.find(ids[0]).await?.is_parked(), "a parked job is not parked");
    t.add(job().delay(secs(20))).await?;
    if let Some(wait) = next(&t).await? {
        must!(wait <= secs(20), "the next job is due in 20 s, and it says {wait:?}");
    }
    Ok(())
}

async fn gives_out_an_unparked_job_once(t: Bench) -> Kept {
    let first = t.add(job()).await?;
    let ids = t.add_all([job().parked(), job().parked(), job().parked().priority(1)]).await?;
    t.advance(secs(1));
    must_eq!(t.amend(ids[0], UNPARK).await?, AmendAnswer::Applied);
    must_eq!(t.amend(ids[1], Action::Unpark { due: Due::In(secs(5)) }).await?, AmendAnswer::Applied);
    let early = Due::At(t.hour().minus(secs(9)));
    must_eq!(t.amend(ids[2], Action::Unpark { due: early }).await?, AmendAnswer::Applied);
    let seen = t.find(ids[0]).await?;
    must_eq!((seen.state, seen.reason, seen.due), (State::Queued, None, t.hour()));
    must_eq!(t.find(ids[1]).await?.state, State::Scheduled);
    must_eq!(t.counts().await?.oldest_due, Some(t.hour().minus(secs(9))));
    must_eq!(given(&t, 9).await?, [ids[2], first, ids[0]]);
    t.advance(secs(5));
    let lease = t.take().await?;
    must_eq!((lease.job.id, lease.job.attempt), (ids[1], 1));
    t.finish(&lease, SUCCEED).await?;
    must_eq!(given(&t, 9).await?, []);
    Ok(())
}

/// Jobs of every sort that is not parked, and what each is.
async fn not_parked(t: &Bench) -> Done<Vec<(JobId, &'static str)>> {
    let mut jobs = Vec::new();
    for (verdict, what) in [
        (Some(SUCCEED), "succeeded"),
        (Some(FAIL), "failed"),
        (Some(retry_in(secs(3_600))), "waits for its retry"),
        (None, "runs"),
    ] {
        let lease = t.hold_this(job().queue(queue("aside"))).await?;
        if let Some(verdict) = verdict {
            t.finish(&lease, verdict).await?;
        }
        jobs.push((lease.job.id, what));
    }
    jobs.push((t.add(job().delay(secs(3_600))).await?, "waits for its time"));
    jobs.push((t.add(job()).await?, "is due"));
    let unparked = t.add(job().parked()).await?;
    t.amend(unparked, Action::Unpark { due: Due::In(secs(7_200)) }).await?;
    jobs.push((unparked, "was unparked"));
    // What ended while it was parked has no time either.
    for (action, what) in
        [(Action::Cancel, "was cancelled"), (Action::CancelParked, "was cancelled if parked")]
    {
        let ended = t.add(job().parked()).await?;
        t.amend(ended, action).await?;
        jobs.push((ended, what));
    }
    Ok(jobs)
}

async fn unparks_nothing_but_what_is_parked(t: Bench) -> Kept {
    for (id, what) in not_parked(&t).await? {
        let before = t.find(id).await?;
        for due in [Due::Now, Due::In(secs(10)), Due::At(Timestamp::from_millis(0))] {
            must_eq!(
                t.amend(id, Action::Unpark { due }).await?,
                AmendAnswer::AlreadyApplied,
                "one that {what}"
            );
            must_eq!(t.find(id).await?, before, "one that {what}");
        }
    }
    must_eq!(t.amend(JobId::generate(), UNPARK).await?, AmendAnswer::NotFound);
    must_eq!(t.claim(9).await?.len(), 1);
    must_eq!(t.claim_from(&queue("aside"), 9).await?.len(), 0);
    Ok(())
}

async fn cancels_a_parked_job_for_its_reason(t: Bench) -> Kept {
    let key = || unique_key("key");
    let id = t.add(job().parked().unique(key(), UniqueScope::UntilFinished).keep(Keep::For(secs(9)))).await?;
    must_eq!(t.amend(id, Action::CancelParked).await?, AmendAnswer::Applied);
    let ended = t.find(id).await?;
    must_eq!((ended.state, ended.reason), (State::Cancelled, Some(Reason::Dependency)));
    must_eq!((ended.finished_at, ended.expires_at), (Some(t.hour()), Some(t.hour().plus(secs(9)))));
    must_eq!(t.amend(id, Action::CancelParked).await?, AmendAnswer::AlreadyApplied);
    must_eq!(t.amend(id, UNPARK).await?, AmendAnswer::AlreadyApplied);
    must_eq!(t.find(id).await?, ended);
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Cancelled), counts.total()), (1, 1));
    t.add(job().unique(key(), UniqueScope::UntilFinished)).await?;
    must_eq!(t.amend(JobId::generate(), Action::CancelParked).await?, AmendAnswer::NotFound);
    Ok(())
}

async fn cancels_parked_jobs_and_no_others(t: Bench) -> Kept {
    for (id, what) in not_parked(&t).await? {
        let before = t.find(id).await?;
        let told = match before.state {
            State::Cancelled => AmendAnswer::AlreadyApplied,
            other => AmendAnswer::Refused(other),
        };
        must_eq!(t.amend(id, Action::CancelParked).await?, told, "one that {what}");
        must_eq!(t.find(id).await?, before, "one that {what}");
    }
    // One that was given back stands where it stood, which is not where it was parked.
    let id = t.add(job().parked().queue(queue("back"))).await?;
    t.amend(id, UNPARK).await?;
    for lease in t.claim_from(&queue("back"), 1).await? {
        t.finish(&lease, RELEASE).await?;
    }
    must_eq!(t.amend(id, Action::CancelParked).await?, AmendAnswer::Refused(State::Queued));
    Ok(())
}

async fn lets_operators_park_and_change_parked_jobs(t: Bench) -> Kept {
    let ids = t.add_all((0..5).map(|_| job().parked())).await?;
    must_eq!(t.amend(ids[0], Action::Cancel).await?, AmendAnswer::Applied);
    must_eq!(t.find(ids[0]).await?.reason, Some(Reason::Cancelled));
    must_eq!(t.amend(ids[1], Action::Delete).await?, AmendAnswer::Applied);
    must_eq!(t.find_all(&[ids[1]]).await?, [None]);
    must_eq!(t.amend(ids[2], Action::Move { queue: queue("b") }).await?, AmendAnswer::Applied);
    must_eq!(t.amend(ids[2], Action::Reprioritise { priority: 3 }).await?, AmendAnswer::Applied);
    must!(t.find(ids[2]).await?.is_parked(), "one that was moved is parked no more");
    must_eq!(t.amend(ids[2], UNPARK).await?, AmendAnswer::Applied);
    must_eq!(t.claim_from(&queue("b"), 9).await?.len(), 1);
    must_eq!(t.amend(ids[3], Action::Postpone { due: Due::PARKED }).await?, AmendAnswer::AlreadyApplied);
    must_eq!(t.amend(ids[3], Action::Postpone { due: Due::Now }).await?, AmendAnswer::Applied);
    must_eq!(given(&t, 9).await?, [ids[3]]);

    let due = t.add(job()).await?;
    must_eq!(t.amend(due, Action::Postpone { due: Due::PARKED }).await?, AmendAnswer::Applied);
    must_eq!(t.amend(ids[0], Action::Requeue { due: Due::PARKED }).await?, AmendAnswer::Applied);
    for id in [due, ids[0]] {
        must!(t.find(id).await?.is_parked(), "one that an operator parked is not parked");
        must_eq!(given(&t, 9).await?, []);
        must_eq!(t.amend(id, UNPARK).await?, AmendAnswer::Applied);
        must_eq!(t.find(id).await?.reason, None);
        must_eq!(given(&t, 9).await?, [id]);
    }
    Ok(())
}

async fn parks_as_a_replacing_newcomer_says(t: Bench) -> Kept {
    let newcomer = || job().replace(unique_key("key"), UniqueScope::UntilFinished);
    let id = t.add(newcomer().parked()).await?;
    t.enqueue([newcomer()]).await?;
    must_eq!(t.amend(id, UNPARK).await?, AmendAnswer::AlreadyApplied);
    must_eq!(t.amend(id, Action::CancelParked).await?, AmendAnswer::Refused(State::Queued));
    t.enqueue([newcomer().parked()]).await?;
    must!(t.find(id).await?.is_parked(), "a parked newcomer left a job due");
    must_eq!(given(&t, 9).await?, []);
    must_eq!(t.amend(id, UNPARK).await?, AmendAnswer::Applied);
    must_eq!(given(&t, 9).await?, [id]);
    Ok(())
}

/// What one of those who race was told of each job.
type Words = Vec<(Action, Vec<(JobId, AmendAnswer)>)>;

/// Says its word on all jobs, on some of them again, in an order of its own.
async fn say(t: Bench, action: Action, mut ids: Vec<JobId>) -> Done<Words> {
    fastrand::shuffle(&mut ids);
    let mut words = Vec::new();
    for some in ids.chunks(7).chain([&ids[..20]]) {
        let answers = t.amend_all(some, action.clone()).await?;
        words.push((action.clone(), some.iter().copied().zip(answers).collect()));
    }
    Ok(words)
}

/// Claims and ends jobs as long as there are some, and until all was said.
async fn work(t: Bench, until: tokio::sync::watch::Receiver<bool>) -> Done<Vec<JobId>> {
    let mut done = Vec::new();
    loop {
        let last = *until.borrow();
        let leases = t.claim(5).await?;
        if leases.is_empty() && last {
            return Ok(done);
        }
        for lease in leases {
            t.finish(&lease, SUCCEED).await?;
            done.push(lease.job.id);
        }
        tokio::task::yield_now().await;
    }
}

async fn lets_one_of_racing_words_decide(t: Bench) -> Kept {
    let ids = t.add_all(jobs(50).into_iter().map(NewJob::parked)).await?;
    let clients = t.several(4).await?;
    let (all_said, said) = tokio::sync::watch::channel(false);
    let workers = clients[..2].iter().map(|client| tokio::spawn(work(client.clone(), said.clone())));
    let workers: Vec<_> = workers.collect();
    let mut tasks = Vec::new();
    for n in 0..16 {
        let action = if n % 2 == 0 { UNPARK } else { Action::CancelParked };
        tasks.push(tokio::spawn(say(clients[n % 4].clone(), action, ids.clone())));
    }
    let mut told: BTreeMap<JobId, Vec<(Action, AmendAnswer)>> = BTreeMap::new();
    for task in tasks {
        for (action, answers) in task.await?? {
            for (id, answer) in answers {
                told.entry(id).or_default().push((action.clone(), answer));
            }
        }
    }
    all_said.send_replace(true);
    let mut ran = Vec::new();
    for worker in workers {
        ran.extend(worker.await??);
    }
    for id in ids {
        let job = t.find(id).await?;
        let runs = ran.iter().filter(|one| **one == id).count();
        agree(&job, runs, &told[&id])?;
    }
    Ok(())
}

/// One word decided, and every other was answered in its sense.
fn agree(job: &JobRecord, runs: usize, told: &[(Action, AmendAnswer)]) -> Kept {
    let decided: Vec<&Action> =
        told.iter().filter(|(_, answer)| *answer == AmendAnswer::Applied).map(|(action, _)| action).collect();
    must_eq!(decided.len(), 1, "of {job:?} it was said {told:?}");
    let cancelled = *decided[0] == Action::CancelParked;
    let (state, times) = if cancelled { (State::Cancelled, 0) } else { (State::Succeeded, 1) };
    must_eq!((job.state, runs), (state, times), "of {job:?} it was said {told:?}");
    for (action, answer) in told {
        let fits = match (action, answer) {
            (_, AmendAnswer::Applied) => true,
            (Action::CancelParked, AmendAnswer::Refused(state)) => !cancelled && *state != State::Scheduled,
            (Action::CancelParked, AmendAnswer::AlreadyApplied) => cancelled,
            (_, answer) => *answer == AmendAnswer::AlreadyApplied,
        };
        must!(fits, "{action:?} of {job:?} was answered {answer:?}");
    }
    Ok(())
}

async fn frees_ten_thousand_at_once(t: Bench) -> Kept {
    const MANY: usize = 10_000;
    for (action, state) in [(UNPARK, State::Queued), (Action::CancelParked, State::Cancelled)] {
        let ids = t.add_all(jobs(MANY).into_iter().map(NewJob::parked)).await?;
        let before = t.counts().await?.of(state);
        for wanted in [AmendAnswer::Applied, AmendAnswer::AlreadyApplied] {
            let answers = t.amend_all(&ids, action.clone()).await?;
            let others = answers.iter().filter(|answer| **answer != wanted).count();
            must_eq!((answers.len(), others), (MANY, 0), "{action:?}, to be answered {wanted:?}");
            must_eq!(t.counts().await?.of(state) - before, MANY as u64, "{action:?}");
        }
    }
    Ok(())
}

async fn changes_no_parked_job_in_a_preview(t: Bench) -> Kept {
    let ids = t.add_all([job().parked(), job()]).await?;
    let before = (t.find_all(&ids).await?, t.all_counts().await?);
    let told = [
        (UNPARK, [AmendAnswer::Applied, AmendAnswer::AlreadyApplied]),
        (Action::CancelParked, [AmendAnswer::Applied, AmendAnswer::Refused(State::Queued)]),
    ];
    let matching = || Select::Matching { filter: Filter::default(), as_of: t.hour(), after: None, limit: 9 };
    for (action, told) in told {
        for select in [Select::Ids(ids.clone()), matching()] {
            let request = Amend { select, action: action.clone(), preview: true };
            let answers: BTreeMap<_, _> =
                t.backend().amend(in_time(2), request).await?.jobs.into_iter().collect();
            must_eq!([answers.get(&ids[0]), answers.get(&ids[1])], told.each_ref().map(Some), "{action:?}");
        }
    }
    must_eq!((t.find_all(&ids).await?, t.all_counts().await?), before);
    must_eq!(given(&t, 9).await?, [ids[1]]);
    Ok(())
}
