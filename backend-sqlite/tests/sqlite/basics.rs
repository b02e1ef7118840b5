use std::time::Duration;

use leasehold_core::backend::*;
use leasehold_core::*;
use leasehold_sqlite::Sqlite;

fn job(n: u32) -> NewJob {
    NewJob::dynamic("k", &n).unwrap()
}

#[tokio::test]
async fn carries_a_job_through_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path().join("jobs.db")).await.unwrap();
    let d = Deadline::default;
    store.setup(d()).await.unwrap();
    let jobs: Vec<_> = (0..300).map(job).collect();
    let ids: Vec<_> = jobs.iter().map(|j| j.id).collect();
    let answers = store.enqueue(d(), Enqueue { jobs: jobs.clone() }).await.unwrap();
    assert!(answers.iter().all(Enqueued::is_created));
    let again = store.enqueue(d(), Enqueue { jobs }).await.unwrap();
    assert!(again.iter().all(|e| matches!(e.answer, EnqueueAnswer::Existing)));
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], 200, Duration::from_secs(30));
    let claimed = store.claim(d(), claim.clone()).await.unwrap();
    assert_eq!(claimed.jobs.iter().map(|l| l.job.id).collect::<Vec<_>>(), ids[..200]);
    let again = store.claim(d(), claim).await.unwrap();
    assert_eq!(again.jobs, claimed.jobs);
    let counts = store.counts(d(), Counts::default()).await.unwrap();
    assert_eq!(
        (counts[0].of(State::Queued), counts[0].of(State::Running), counts[0].enqueued),
        (100, 200, 300)
    );
    let settlements: Vec<_> = claimed
        .jobs
        .iter()
        .map(|l| Settlement {
            job: l.job.id,
            token: l.token,
            verdict: Verdict::Succeed { result: Some(Payload::from("r".to_owned())) },
            failure: None,
        })
        .collect();
    let answers = store.settle(d(), Settle { settlements: settlements.clone() }).await.unwrap();
    assert!(answers.iter().all(|a| *a == Answer::Applied));
    let answers = store.settle(d(), Settle { settlements }).await.unwrap();
    assert!(answers.iter().all(|a| *a == Answer::AlreadyApplied));
    let found = store.find(d(), Find { ids: vec![ids[0], ids[299]] }).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().state, State::Succeeded);
    assert_eq!(found[0].as_ref().unwrap().result, Some(Payload::from("r".to_owned())));
    assert_eq!(found[1].as_ref().unwrap().state, State::Queued);
    let counts = store.counts(d(), Counts::default()).await.unwrap();
    assert_eq!((counts[0].of(State::Queued), counts[0].of(State::Succeeded)), (100, 200));
    store.close().await;
}
