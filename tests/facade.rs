//! What the facade adds: choosing a store by URL, and a README that tells the truth.

use std::time::Duration;

use leasehold::policy::Backoff;
use leasehold::{ErrorKind, JobOptions};

async fn refused(url: &str) -> String {
    let error = leasehold::connect(url).await.expect_err(url);
    assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
    error.to_string()
}

#[tokio::test]
async fn a_url_with_a_typo_is_told_the_way() {
    assert!(refused("sqlit:jobs.db").await.contains("did you mean `sqlite:`"));
    assert!(refused("memroy:").await.contains("did you mean `memory:`"));
    assert!(refused("SQLITE:jobs.db").await.contains("did you mean `sqlite:`"));
    assert!(!refused("ftp://host/").await.contains("did you mean"));
    for url in ["", "jobs.db", "ftp://host/"] {
        let told = refused(url).await;
        assert!(told.contains("`memory:`") && told.contains("`sqlite:FILE`"), "{told}");
    }
}

#[tokio::test]
async fn a_password_in_a_url_is_never_shown() {
    for url in ["mysql://ann:hunter2@host/db", "hunter2", "sqlit://ann:hunter2@host/db"] {
        let error = leasehold::connect(url).await.expect_err("no such store");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn a_store_in_memory_takes_no_name() {
    leasehold::connect("memory:").await.expect("a store");
    assert!(refused("memory:jobs").await.contains("`memory:`"));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_sqlite_store_is_opened_and_set_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let store = leasehold::connect(&url).await.expect("a store");
    let job = leasehold::NewJob::dynamic("greet", "world").expect("a job");
    let id = store.queue("default").expect("a name").enqueue(job).await.expect("taken in");
    drop(store);
    let again = leasehold::connect(&url).await.expect("the same store");
    assert!(again.find(id).await.expect("an answer").is_some());
    assert!(refused(&format!("{url}?synchronus=off")).await.contains("synchronus"));
}

#[cfg(not(feature = "sqlite"))]
#[tokio::test]
async fn a_feature_that_is_off_is_named() {
    assert!(refused("sqlite:jobs.db").await.contains("features = [\"sqlite\"]"));
}

#[cfg(not(feature = "memory"))]
#[tokio::test]
async fn a_store_in_memory_without_its_feature_names_it() {
    assert!(refused("memory:").await.contains("features = [\"memory\"]"));
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = include_str!("../README.md");
    assert!(readme.contains(include_str!("../examples/hello.rs")), "copy examples/hello.rs into README.md");
}

#[test]
fn the_guide_prints_the_default_schedule_as_it_is() {
    let (guide, backoff) = (include_str!("../docs/guide/retries.md"), Backoff::default());
    let attempts = JobOptions::default().max_attempts;
    let mut all = Duration::ZERO;
    for attempt in 1..attempts {
        let (least, most) = (backoff.delay(attempt, 1.0), backoff.delay(attempt, 0.0));
        all += most;
        let row = format!("| {attempt} | {} to {} | {} |\n", words(least), words(most), words(all));
        assert!(guide.contains(&row), "the row of attempt {attempt} is not {row}");
    }
    assert!(guide.contains(&format!("| {attempts} | it fails (`max_attempts`) |")));
}

/// A span in hours, minutes and seconds.
fn words(span: Duration) -> String {
    let (minutes, seconds) = (span.as_secs() / 60, span.as_secs_f64() % 60.0);
    let parts = [((minutes / 60) as f64, "h"), ((minutes % 60) as f64, "min"), (seconds, "s")];
    let told = parts.iter().filter(|(count, _)| *count > 0.0);
    told.map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}
