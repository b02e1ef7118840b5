//! Input that is meant to do harm: it is kept to the letter, and never interpreted.

use leasehold_core::backend::{
    Claim, Filter, List, LogAppend, LogSource, NewFailure, NewLine, Order, Pause, QueueSettings, ReadLogs,
    SetQueue, Settle, Settlement, Verdict,
};
use leasehold_core::{Backend, NewJob, Payload, QueueName, Reason, UniqueScope, WorkerId};

use crate::bench::{LEASE, add, counts, find, number, soon, store};

const HOSTILE: [&str; 12] = [
    "'; DROP SCHEMA public CASCADE; --",
    "\"; DELETE FROM leasehold.jobs; --",
    "$1",
    "$body$",
    "leasehold.",
    "{a,b}",
    "{\"$secret\":1}",
    "NULL",
    "%s%n",
    "\\x00\\",
    "\u{202e}ab\u{e9}e\u{301}",
    "🦀 '' \"\" \\' E'\\n'",
];

#[tokio::test(flavor = "multi_thread")]
async fn names_texts_and_payloads_come_back_to_the_letter() {
    let (store, schema, mut other) = store().await;
    for text in HOSTILE {
        let worker = WorkerId::generate();
        let queue = QueueName::new(text).expect("a name");
        let payload = Payload::from([text.as_bytes(), b"\0\xff'\\"].concat());
        let new = NewJob::new(text.parse().expect("a name"), payload.clone())
            .queue(queue.clone())
            .tag(text.parse().expect("a tag"))
            .unique(text.parse().expect("a key"), UniqueScope::UntilFinished)
            .limit(text.parse().expect("a key"), 1)
            .header("name", format!("{text}\0"));
        let id = add(&store, vec![new.clone()]).await[0];
        let pause = Some(Pause { by: format!("{text}\0"), reason: text.into() });
        for settings in [QueueSettings { pause, ..QueueSettings::default() }, QueueSettings::default()] {
            store.set_queue(soon(), SetQueue { queue: queue.clone(), settings }).await.expect("set");
        }
        let claim = Claim::new(worker, [queue.clone()], 1, LEASE);
        let lease = store.claim(soon(), claim).await.expect("a claim").jobs.remove(0);
        assert_eq!((lease.job.id, &lease.job.payload, &lease.job.options), (id, &payload, &new.options));
        let lines =
            vec![NewLine { level: leasehold_core::backend::Level::Warn, message: format!("{text}\0\n") }];
        let append = LogAppend { job: id, token: lease.token, position: 0, lines: lines.clone() };
        store
            .append_logs(soon(), leasehold_core::backend::AppendLogs { appends: vec![append] })
            .await
            .expect("lines");
        let read = ReadLogs { source: LogSource::Job(id), after: 0, limit: 9 };
        assert_eq!(store.read_logs(soon(), read).await.expect("lines").lines[0].message, lines[0].message);
        let class = format!("{text}\0");
        let failure =
            Some(NewFailure { reason: Reason::Error, class: class.clone(), message: format!("\0{text}") });
        let settlement = Settlement {
            job: id,
            token: lease.token,
            verdict: Verdict::Fail { reason: Reason::Error },
            failure,
        };
        store.settle(soon(), Settle { settlements: vec![settlement] }).await.expect("an answer");
        let job = find(&store, id).await;
        assert_eq!((&job.history[0].class, &job.history[0].message), (&class, &format!("\0{text}")));
        let mut filter = Filter::default();
        filter.error_class = Some(class);
        filter.queues = Some(vec![queue]);
        filter.tags = Some(new.options.tags.iter().cloned().collect());
        filter.payload_contains = Some(text.into());
        let list = List { filter, order: Order::NewestFirst, after: None, limit: 9 };
        assert_eq!(store.list(soon(), list).await.expect("a page").jobs.len(), 1, "{text}");
    }
    assert_eq!(number(&mut other, format!("SELECT count(*) FROM {schema}.jobs")).await, HOSTILE.len() as i64);
    assert_eq!(counts(&store).await.enqueued, 1);
}
