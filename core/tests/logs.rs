//! What a job says, in its log.

use std::time::Duration;

use leasehold_core::backend::{Level, LogSource};
use leasehold_core::testing::run_all;
use leasehold_core::worker::{Args, JobLogs};
use leasehold_core::{Attempt, JobArgs, JobId, Store};
use tracing_subscriber::layer::SubscriberExt;

use crate::worker::{builder, enqueue};
use crate::{Add, store};

async fn lines(store: &Store, job: JobId) -> Vec<(Level, String)> {
    let page = store.logs(LogSource::Job(job), 0, 1_000).await.unwrap();
    page.lines.into_iter().map(|line| (line.level, line.message)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_job_says_through_tracing_is_in_its_log() {
    async fn talks(attempt: Attempt) {
        tracing::info!(pages = 3, file = "a b", "begun");
        tracing::debug!("a detail");
        attempt.map([1, 2], 1, |part| async move { tracing::warn!(part, "odd") }).collect::<Vec<_>>().await;
        tokio::spawn(async { tracing::error!("somebody else's") }).await.unwrap();
        tracing::error!("done");
    }
    use futures::StreamExt;
    let store = store();
    let job = enqueue(&store, 1, 0).await;
    let tracing = tracing_subscriber::registry().with(JobLogs::default());
    let _set = tracing::subscriber::set_default(tracing);
    tracing::info!("before");
    run_all(&store, builder(&store).handle(Add::KIND, talks).build().unwrap()).await.unwrap();
    let said = [
        (Level::Info, r#"begun pages=3 file="a b""#),
        (Level::Warn, "odd part=1"),
        (Level::Warn, "odd part=2"),
        (Level::Error, "done"),
    ];
    assert_eq!(lines(&store, job).await, said.map(|(level, text)| (level, text.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_lines_the_oldest_go_and_the_log_says_how_many() {
    let ms = |ms| tokio::time::sleep(Duration::from_millis(ms));
    let talks = move |Args(sum): Args<Add>, attempt: Attempt| async move {
        attempt.log(Level::Info, "begun");
        // Lines are gathered for some time after the first.
        ms(sum.b).await;
        (0..sum.a).for_each(|n| attempt.log(Level::Info, n.to_string()));
        ms(10 - sum.b).await;
    };
    let store = store();
    let few = enqueue(&store, 100, 1).await;
    let many = enqueue(&store, 10_030, 5).await;
    run_all(&store, builder(&store).handle(Add::KIND, talks).build().unwrap()).await.unwrap();
    let missing = "100 lines are missing here: more came than the store takes".to_owned();
    assert_eq!(lines(&store, few).await, [(Level::Info, "begun".to_owned()), (Level::Warn, missing)]);
    let kept = lines(&store, many).await;
    assert_eq!((kept.len(), kept.last().unwrap()), (1_000, &(Level::Info, "10029".to_owned())));
}
