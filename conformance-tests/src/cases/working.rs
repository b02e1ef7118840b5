//! C2a and L4: what a worker makes of a store that it cannot reach for one of its calls.

use std::sync::{Arc, Mutex, PoisonError};

use leasehold_core::backend::Level;
use leasehold_core::layer::{Faults, Operation};
use leasehold_core::{Attempt, State, Worker};
use tokio::sync::Notify;

use crate::bench::{Bench, job, millis, secs};
use crate::breach::{Kept, must_eq};
use crate::case::cases;

cases! {
    /// The handler of a worker whose renewals are not answered has ended before anybody else begins with its job.
    [C2a, C3] ends_a_handler_before_another_begins;
    /// A job whose every line is lost succeeds all the same.
    [L4] fails_no_job_for_its_log;
}

/// What the handlers of several workers did, in order.
#[derive(Clone, Default)]
struct Course(Arc<Mutex<Vec<String>>>);

impl Course {
    fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn told(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handler under way: it has ended when this is gone, whoever ended it.
struct Running(Course, u32);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.note(format!("{} ends", self.1));
    }
}

/// A handler that runs until it is ended, but on the second attempt.
async fn run(course: Course, began: Arc<Notify>, attempt: Attempt) {
    course.note(format!("{} begins", attempt.number()));
    let _running = Running(course, attempt.number());
    began.notify_one();
    if attempt.number() == 1 {
        std::future::pending::<()>().await;
    }
}

async fn ends_a_handler_before_another_begins(t: Bench) -> Kept {
    let t = t.in_its_own_time().await?;
    let id = t.add(job()).await?;
    must_eq!(t.state(id).await?, State::Queued);
    let (course, began) = (Course::default(), Arc::new(Notify::new()));
    let handler = || {
        let (course, began) = (course.clone(), Arc::clone(&began));
        move |attempt: Attempt| run(course.clone(), Arc::clone(&began), attempt)
    };
    let hung = Faults { hung: 1.0, ..Faults::default() };
    let deaf = t.over_a_line(hung, &[Operation::Renew], secs(5));
    let deaf = Worker::builder(&deaf).lease(secs(3)).recovery(secs(60)).handle("work", handler()).build()?;
    let deaf = deaf.start();
    began.notified().await;
    let sound = t.another().await?.store();
    let sound = Worker::builder(&sound).recovery(millis(50)).poll(millis(20)).handle("work", handler());
    let sound = sound.build()?.start();
    began.notified().await;
    sound.stop().await?;
    deaf.stopper().interrupt();
    deaf.stop().await?;
    must_eq!(course.told(), ["1 begins", "1 ends", "2 begins", "2 ends"]);
    Ok(())
}

async fn fails_no_job_for_its_log(t: Bench) -> Kept {
    for faults in [
        Faults { refused: 1.0, ..Faults::default() },
        Faults { request_lost: 1.0, ..Faults::default() },
        Faults { hung: 1.0, ..Faults::default() },
    ] {
        let id = t.add(job()).await?;
        let store = t.over_a_line(faults, &[Operation::AppendLogs], millis(100));
        async fn talks(attempt: Attempt) {
            for line in ["one", "two", "three"] {
                attempt.log(Level::Info, line);
            }
        }
        let worker = Worker::builder(&store).handle("work", talks).until_idle().build()?;
        let summary = worker.run().await;
        must_eq!((summary.succeeded, summary.failed, summary.retried), (1, 0, 0), "with {faults:?}");
        let job = t.find(id).await?;
        must_eq!((job.state, job.attempt, job.history), (State::Succeeded, 1, Vec::new()));
        must_eq!(t.said(id).await?.len(), 0, "lines that came through");
    }
    Ok(())
}
