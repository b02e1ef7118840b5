use std::time::Duration;

use futures::StreamExt;
use leasehold_core::backend::{
    Action, AmendAnswer, AppendLogs, Claim, Durability, EnqueueAnswer, Enqueued, Filter, Level, LogAppend,
    LogSource, NewLine,
};
use leasehold_core::policy::RetryPolicy;
use leasehold_core::{
    ErrorKind, JobOptions, Keep, LimitKey, NewJob, Payload, QueueName, Retention, State, Tag, UniqueKey,
    UniqueScope, WorkerId, assert_enqueued,
};

use crate::{Add, store};

#[tokio::test(start_paused = true)]
async fn enqueues_one_many_and_later() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    let job = queue.enqueue(Add { a: 1, b: 2 }).await.unwrap();
    let record = assert_enqueued!(store, "add", args = Add { a: 1, b: 2 });
    assert_eq!((record.id, record.state, record.queue.as_str()), (job, State::Queued, "sums"));

    let later = NewJob::of(&Add { a: 3, b: 4 }).unwrap().delay(Duration::from_secs(60));
    queue.enqueue(later).await.unwrap();
    let answers = queue.enqueue_all((0..2_500).map(|n| Add { a: n, b: 100 })).await.unwrap();
    assert_eq!(answers.len(), 2_500);
    assert!(answers.iter().all(Enqueued::is_created));
    assert!(queue.enqueue_all(Vec::<Add>::new()).await.unwrap().is_empty());

    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.of(State::Queued), counts.of(State::Scheduled), counts.total()), (2_501, 1, 2_502));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(queue.counts().await.unwrap().of(State::Scheduled), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_given_what_its_queue_says_and_it_does_not() {
    let store = store();
    let tag = |name| Tag::new(name).unwrap();
    let seconds = Duration::from_secs;
    let kept = |n| Retention { failed: Keep::For(seconds(n)), ..Retention::default() };
    let queue = store.queue("sums").unwrap().defaults(|job| {
        let job = job.priority(5).max_attempts(3).crash_budget(1).retention(kept(7)).delay(seconds(60));
        let job = job.lease(seconds(9)).timeout(seconds(8)).retry(RetryPolicy::default());
        job.limit(LimitKey::new("sums").unwrap(), 2)
            .tag(tag("queue"))
            .header("a", "queue")
            .header("b", "queue")
    });
    let found = async |id| store.find(id).await.unwrap().unwrap();

    // Of one that says nothing everything.
    let job = found(queue.enqueue(Add { a: 1, b: 2 }).await.unwrap()).await;
    let options = &job.options;
    assert_eq!((options.priority, options.max_attempts, options.crash_budget), (5, 3, 1));
    assert_eq!((options.retention, job.state), (kept(7), State::Scheduled));
    assert_eq!((options.lease, options.timeout), (Some(seconds(9)), Some(seconds(8))));
    assert_eq!((options.retry.is_some(), options.limit.as_ref().unwrap().max), (true, 2));

    // What one says counts, also where that is as it is anyway; tags and headers add up.
    let usual = JobOptions::default();
    let said = NewJob::of(&Add { a: 1, b: 2 }).unwrap().priority(0).max_attempts(usual.max_attempts);
    let said = said.crash_budget(usual.crash_budget).retention(usual.retention).delay(Duration::ZERO);
    let said = said.lease(seconds(1)).timeout(seconds(2)).limit(LimitKey::new("own").unwrap(), 1);
    let said = said.tag(tag("own")).header("a", "own").header("c", "own");
    let job = found(queue.enqueue(said).await.unwrap()).await;
    let options = &job.options;
    assert_eq!((options.priority, options.max_attempts, options.crash_budget), (0, 20, 3));
    assert_eq!((options.retention, job.state), (usual.retention, State::Queued));
    assert_eq!((options.lease, options.timeout), (Some(seconds(1)), Some(seconds(2))));
    assert_eq!(options.limit.as_ref().unwrap().key.as_str(), "own");
    assert_eq!(options.tags, [tag("own"), tag("queue")].into());
    let headers = [("a", "own"), ("b", "queue"), ("c", "own")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(options.headers, headers.into());

    // Many at once, told in two steps, and by somebody else.
    let queue = queue.defaults(|job| job.priority(6));
    let ids = queue.enqueue_all([Add { a: 1, b: 1 }]).await.unwrap();
    assert_eq!(found(ids[0].job).await.options.priority, 6);
    let job = queue.job(Add { a: 1, b: 1 }).unwrap();
    assert_eq!((job.queue.as_str(), job.options.priority, job.options.max_attempts), ("sums", 6, 3));
    assert_eq!(store.queue("sums").unwrap().job(Add { a: 1, b: 1 }).unwrap().options, usual);
}

#[tokio::test(start_paused = true)]
async fn a_raw_queue_begins_with_the_defaults_of_its_queue() {
    let store = store();
    let queue = store.queue("sums").unwrap().defaults(|job| {
        let job = job.priority(5).max_attempts(3).timeout(Duration::from_secs(8));
        job.unique(UniqueKey::new("one").unwrap(), UniqueScope::UntilFinished)
    });
    let list = queue.raw("click").unwrap().with(|job| job.priority(4)).list();
    let id = list.push_many(["1".to_owned(), "2".to_owned()]).await.unwrap().remove(0);
    let options = store.find(id).await.unwrap().unwrap().options;
    // A record may be attempted for each of its payloads, and its time-out is theirs.
    assert_eq!((options.priority, options.max_attempts, options.timeout), (4, 5, None));
    assert_eq!((options.unique, options.retention.succeeded), (None, Keep::For(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn tells_the_survivor_of_a_unique_key() {
    let queue = store().queue("sums").unwrap();
    let key = UniqueKey::new("report").unwrap();
    let job = || NewJob::of(&Add { a: 1, b: 1 }).unwrap().unique(key.clone(), UniqueScope::UntilFinished);
    let first = queue.enqueue(job()).await.unwrap();
    let second = queue.submit(job()).await.unwrap();
    assert_eq!(second.job, first);
    assert!(matches!(second.answer, EnqueueAnswer::Held));
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_result_and_gives_up_in_time() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    let job = queue.enqueue(Add { a: 1, b: 2 }).await.unwrap();
    let waiting = store.wait(job, Duration::from_secs(5)).await.unwrap();
    assert_eq!(waiting.state, State::Queued);

    let ending = async {
        let held = queue.consumer().next().await.unwrap().unwrap();
        held.complete(Some(Payload::json(&3).unwrap())).await.unwrap();
    };
    let (done, ()) = tokio::join!(store.wait(job, Duration::from_secs(60)), ending);
    assert_eq!(done.unwrap().result.unwrap().parse::<u64>().unwrap(), 3);

    let nobody = leasehold_core::JobId::generate();
    assert_eq!(store.wait(nobody, Duration::ZERO).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn cancels_requeues_and_deletes() {
    let store = store();
    let job = store.queue("sums").unwrap().enqueue(Add { a: 1, b: 2 }).await.unwrap();
    assert_eq!(store.cancel(job).await.unwrap(), AmendAnswer::Applied);
    assert_eq!(store.cancel(job).await.unwrap(), AmendAnswer::AlreadyApplied);
    assert_eq!(store.requeue(job).await.unwrap(), AmendAnswer::Applied);
    assert_eq!(store.requeue(job).await.unwrap(), AmendAnswer::Refused(State::Queued));
    assert_eq!(store.delete(job).await.unwrap(), AmendAnswer::Applied);
    assert_eq!(store.delete(job).await.unwrap(), AmendAnswer::NotFound);
    assert_eq!(store.find(job).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn amends_all_that_match_in_bounded_batches() {
    let store = store();
    let (a, b) = (store.queue("a").unwrap(), store.queue("b").unwrap());
    a.enqueue_all((0..1_200).map(|n| Add { a: n, b: 0 })).await.unwrap();
    b.enqueue_all((0..10).map(|n| Add { a: n, b: 0 })).await.unwrap();
    let filter = || {
        let mut filter = Filter::default();
        filter.queues = Some(vec![QueueName::new("a").unwrap()]);
        filter
    };

    let mut preview = store.amend_all(filter(), Action::Delete).await.unwrap().preview();
    let mut seen = 0;
    while let Some(batch) = preview.next().await.unwrap() {
        assert!(batch.len() <= 500);
        seen += batch.len();
    }
    assert_eq!((seen, a.counts().await.unwrap().total()), (1_200, 1_200));

    let mut bulk = store.amend_all(filter(), Action::Delete).await.unwrap();
    while bulk.next().await.unwrap().is_some() {}
    assert_eq!((a.counts().await.unwrap().total(), b.counts().await.unwrap().total()), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn follows_a_log_live() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    let job = queue.enqueue(Add { a: 1, b: 2 }).await.unwrap();
    let mut lines = Box::pin(store.follow(LogSource::Job(job), 0));
    let claim = Claim::new(WorkerId::generate(), [queue.name().clone()], 1, Duration::from_secs(30));
    let token = claim.id.token(job);
    store.backend().claim(Default::default(), claim).await.unwrap();
    for position in 0..3 {
        let line = NewLine { level: Level::Info, message: format!("line {position}") };
        let append = LogAppend { job, token, position, lines: vec![line] };
        store.backend().append_logs(Default::default(), AppendLogs { appends: vec![append] }).await.unwrap();
        let page = lines.next().await.unwrap().unwrap();
        assert_eq!(page.lines[0].message, format!("line {position}"));
        assert!(!page.gap);
    }
}

#[tokio::test(start_paused = true)]
async fn requires_a_durability_that_the_store_keeps() {
    let store = store();
    store.require_durability(Durability::D0).await.unwrap();
    let error = store.require_durability(Durability::D2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("D0") && error.to_string().contains("D2"), "{error}");
}
