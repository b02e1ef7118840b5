//! B1, B2 and B5: bad input is refused before the store is touched, and what is shown keeps secrets.

use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, AppendLogs, Backend, CheckIn, Claim, Enqueue, Filter, List, LogAppend, Order, Prune,
    PutRegister, Recover, Renew, Renewal, Select, Settle, Settlement, Space, Verdict, WorkerInfo,
};
use leasehold_core::layer::Faults;
use leasehold_core::{
    Deadline, Due, Error, ErrorKind, Kind, LeasedJob, LimitKey, Limits, NewJob, Payload, QueueName,
    RegisterName, Result, Store, Tag, Timestamp, UniqueKey, UniqueScope, WorkerName, limits,
};

use super::calls::all_seen;
use crate::bench::{
    Bench, LEASE, SUCCEED, failure, in_time, job, lines, millis, schedule_name, secs, settlement, text,
    unique_key, worker_name,
};
use crate::breach::{Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// A name that is empty, too long, has a control character or white space at an end is refused.
    [B1] refuses_names_that_break_the_rules of the client;
    /// A number or span out of range is refused by every call, and the store is what it was.
    [B1] refuses_numbers_and_spans_out_of_range;
    /// What is too large is refused by an error that names the limit, and the store is what it was.
    [B2] refuses_what_is_too_large_and_names_the_limit;
    /// What is exactly as large as the limits allow is taken, and comes back whole.
    [B2, P6] takes_what_is_as_large_as_allowed;
    /// Text that is only for people is cut and not refused.
    [B2, S4] cuts_what_is_only_for_people;
    /// Nothing that is shown of a URL shows its password.
    [B5] shows_no_password;
}

/// The handle of a program whose every call would fail as unavailable if it reached the store.
fn refusing(t: &Bench) -> Store {
    t.over_a_line(Faults { refused: 1.0, ..Faults::default() }, &[], millis(50))
}

async fn refuses_names_that_break_the_rules(t: Bench) -> Kept {
    let store = refusing(&t);
    let before = all_seen(&t).await?;
    let long = "x".repeat(limits::KEY_BYTES + 1);
    for name in ["", " a", "a ", "\u{a0}a", "a\nb", "\u{0}", "\u{7f}", "\u{85}", &long] {
        let refusals = [
            store.queue(name).map(drop),
            NewJob::dynamic(name, "x").map(drop),
            QueueName::new(name).map(drop),
            Kind::new(name).map(drop),
            Tag::new(name).map(drop),
            UniqueKey::new(name).map(drop),
            LimitKey::new(name).map(drop),
            WorkerName::new(name).map(drop),
            RegisterName::new(name).map(drop),
            in_store(&store, vec![job().header(name, "x")]).await,
        ];
        for (i, refusal) in refusals.into_iter().enumerate() {
            let kind = refusal.map_err(|error| error.kind());
            must_eq!(kind, Err(ErrorKind::InvalidInput), "the name {name:?} of thing {i}");
        }
    }
    must_eq!(all_seen(&t).await?, before);
    Ok(())
}

async fn in_store(store: &Store, jobs: Vec<NewJob>) -> Result<()> {
    store.backend().enqueue(in_time(0), Enqueue { jobs }).await.map(drop)
}

fn renewal(held: &LeasedJob, lease: Duration) -> Renew {
    Renew { renewals: vec![Renewal { job: held.job.id, token: held.token, lease, progress: None }] }
}

fn amend(action: Action) -> Amend {
    Amend { select: Select::Ids(Vec::new()), action, preview: false }
}

/// Jobs that no store is to see.
fn bad_jobs() -> Vec<NewJob> {
    let too_long = limits::SPAN + secs(1);
    vec![
        job().priority(limits::PRIORITY.end() + 1),
        job().priority(limits::PRIORITY.start() - 1),
        job().max_attempts(0),
        job().max_attempts(limits::ATTEMPTS + 1),
        job().lease(millis(1)),
        job().lease(Duration::from_hours(25)),
        job().timeout(Duration::ZERO),
        job().delay(too_long),
        job().run_at(Timestamp::from_millis(-1)),
        job().unique(unique_key("k"), UniqueScope::For(Duration::ZERO)),
        job().unique(unique_key("k"), UniqueScope::For(too_long)),
        job().limit(crate::bench::limit_key("k"), 0),
        job().keep(leasehold_core::Keep::For(too_long)),
        job().debounce(unique_key("k"), secs(1), secs(9)).parked(),
    ]
}

/// One call of each sort with a number or span that is out of range, and what it answers.
async fn ask_out_of_range(backend: &dyn Backend, t: &Bench, held: &LeasedJob) -> Vec<Result<()>> {
    let d = Deadline::default;
    let list = |limit| List { filter: Filter::default(), order: Order::OldestFirst, after: None, limit };
    let late = |verdict| Settle { settlements: vec![settlement(held, verdict)] };
    let info = WorkerInfo::new(worker_name("w"), "h", 1);
    let put = PutRegister::new(Space::Schedule, schedule_name("s"), text(""), None);
    let put = PutRegister { next: Some(Timestamp::from_millis(-1)), ..put };
    let too_long = limits::SPAN + secs(1);
    let reason = leasehold_core::Reason::Error;
    let mut answers = vec![
        backend.claim(d(), Claim { lease: Duration::ZERO, ..t.asking(1) }).await.map(drop),
        backend.renew(d(), renewal(held, Duration::from_hours(25))).await.map(drop),
        backend.settle(d(), late(Verdict::Retry { reason, delay: too_long, queue: None })).await.map(drop),
        backend.settle(d(), late(Verdict::Release { reason, delay: too_long })).await.map(drop),
        backend.recover(d(), Recover { settlements: vec![settlement(held, SUCCEED)] }).await.map(drop),
        backend.list(d(), list(0)).await.map(drop),
        backend.amend(d(), amend(Action::Reprioritise { priority: 1_001 })).await.map(drop),
        backend.amend(d(), amend(Action::Postpone { due: Due::In(too_long) })).await.map(drop),
        backend.amend(d(), amend(Action::Unpark { due: Due::In(too_long) })).await.map(drop),
        backend.amend(d(), amend(Action::Unpark { due: Due::PARKED })).await.map(drop),
        backend.prune(d(), Prune { limit: 0, workers_after: secs(1) }).await.map(drop),
        backend
            .check_in(d(), CheckIn { worker: t.worker, info, lost_after: too_long, leaving: false })
            .await
            .map(drop),
        backend.put_register(d(), put).await,
    ];
    for bad in bad_jobs() {
        // A good job beside it is not taken in either: the whole call is refused.
        answers.push(backend.enqueue(d(), Enqueue { jobs: vec![job(), bad] }).await.map(drop));
    }
    answers
}

async fn refuses_numbers_and_spans_out_of_range(t: Bench) -> Kept {
    let held = t.hold().await?;
    let before = all_seen(&t).await?;
    for (i, answer) in ask_out_of_range(&**refusing(&t).backend(), &t, &held).await.into_iter().enumerate() {
        must_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::InvalidInput), "call {i}");
    }
    must_eq!(all_seen(&t).await?, before);
    t.finish(&held, SUCCEED).await?;
    Ok(())
}

async fn refuses_what_is_too_large_and_names_the_limit(t: Bench) -> Kept {
    let held = t.hold().await?;
    let before = all_seen(&t).await?;
    let (store, limits) = (refusing(&t), Limits::default());
    let (backend, d) = (store.backend(), Deadline::default);
    let large = Payload::from(vec![b'x'; limits.payload_bytes + 1]);
    let headers = (0..=limits.headers).fold(job(), |job, i| job.header(i.to_string(), "x"));
    let tags = (0..=limits.tags).fold(job(), |job, i| job.tag(crate::bench::tag(&i.to_string())));
    let progress =
        leasehold_core::Progress { message: "x".repeat(limits.progress_bytes + 1), ..Default::default() };
    let mut renew = renewal(&held, LEASE);
    renew.renewals[0].progress = Some(progress);
    let many = vec![settlement(&held, SUCCEED); limits.batch + 1];
    let list =
        List { filter: Filter::default(), order: Order::OldestFirst, after: None, limit: limits.page + 1 };
    let append = LogAppend {
        job: held.job.id,
        token: held.token,
        position: 0,
        lines: lines(vec!["x"; limits.batch + 1]),
    };
    let result = settlement(&held, Verdict::Succeed { result: Some(large.clone()) });
    let refusals: [(Result<()>, usize); 9] = [
        (in_store(&store, vec![NewJob::new(crate::bench::kind("work"), large)]).await, limits.payload_bytes),
        (in_store(&store, crate::bench::jobs(limits.batch + 1)).await, limits.batch),
        (in_store(&store, vec![headers]).await, limits.headers),
        (in_store(&store, vec![tags]).await, limits.tags),
        (backend.renew(d(), renew).await.map(drop), limits.progress_bytes),
        (backend.settle(d(), Settle { settlements: vec![result] }).await.map(drop), limits.payload_bytes),
        (backend.settle(d(), Settle { settlements: many }).await.map(drop), limits.batch),
        (backend.append_logs(d(), AppendLogs { appends: vec![append] }).await.map(drop), limits.batch),
        (backend.list(d(), list).await.map(drop), limits.page),
    ];
    for (i, (refusal, limit)) in refusals.into_iter().enumerate() {
        let told = refusal.map_err(|error: Error| (error.kind(), error.to_string()));
        let fits = matches!(&told, Err((ErrorKind::TooLarge, why)) if why.contains(&limit.to_string()));
        must!(fits, "call {i} went beyond the limit of {limit} and was answered {told:?}");
    }
    must_eq!(all_seen(&t).await?, before);
    t.finish(&held, SUCCEED).await?;
    Ok(())
}

async fn takes_what_is_as_large_as_allowed(t: Bench) -> Kept {
    let (store, limits) = (t.store(), Limits::default());
    let large = Payload::from(vec![0xfe; limits.payload_bytes]);
    let job = NewJob::new(crate::bench::kind("work"), large.clone());
    let id = job.id;
    in_store(&store, vec![job]).await?;
    let lease = t.take().await?;
    must!(lease.job.payload == large, "a payload of the largest size was altered");
    let settle = settlement(&lease, Verdict::Succeed { result: Some(large.clone()) });
    store.backend().settle(in_time(0), Settle { settlements: vec![settle] }).await?;
    must!(t.find(id).await?.result == Some(large), "a result of the largest size was altered");
    Ok(())
}

async fn cuts_what_is_only_for_people(t: Bench) -> Kept {
    let (store, limits) = (t.store(), Limits::default());
    let lease = t.hold().await?;
    let long = "ä".repeat(limits.failure_bytes + limits.log_line_bytes);
    let (job, token) = (lease.job.id, lease.token);
    let append = LogAppend { job, token, position: 0, lines: lines([long.clone()]) };
    store.backend().append_logs(in_time(0), AppendLogs { appends: vec![append] }).await?;
    let failed = Settlement {
        failure: Some(failure(&long, &long)),
        ..settlement(&lease, Verdict::Fail { reason: leasehold_core::Reason::Error })
    };
    store.backend().settle(in_time(0), Settle { settlements: vec![failed] }).await?;
    let said = t.said(job).await?;
    let kept = t.find(job).await?.history;
    must_eq!((said.len(), kept.len()), (1, 1));
    let lengths = (said[0].len(), kept[0].message.len(), kept[0].class.len());
    must!(lengths.0 <= limits.log_line_bytes, "a line of {} bytes was kept", lengths.0);
    must!(lengths.1 <= limits.failure_bytes, "a message of {} bytes was kept", lengths.1);
    must!(lengths.2 <= limits::KEY_BYTES, "a class of {} bytes was kept", lengths.2);
    must!(said[0].starts_with("ää") && kept[0].message.starts_with("ää"), "nothing is left of what was said");
    Ok(())
}

async fn shows_no_password(t: Bench) -> Kept {
    const PASSWORD: &str = "canary7Zq";
    let mut shown = t.shown_of_password(PASSWORD).await?;
    must!(!shown.is_empty(), "nothing was shown, so nothing was tried");
    shown.push(format!("{:?}", t.backend()));
    for text in shown {
        must!(!text.contains(PASSWORD), "a password is shown: {text}");
    }
    Ok(())
}
