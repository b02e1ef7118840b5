use std::collections::HashMap;

use async_trait::async_trait;
use leasehold_core::{JobId, LeaseToken, NewJob};
use leasehold_redis::redis::aio::MultiplexedConnection;
use leasehold_redis::redis::{self, Client, Script};

use crate::Trouble;
use crate::target::{Held, Target, expect};

/// What Redis does at best, by scripts that take a batch each and are as durable as the server is.
pub(crate) struct RawRedis {
    connection: MultiplexedConnection,
    /// What the names of its keys begin with.
    prefix: String,
    enqueue: Script,
    claim: Script,
    settle: Script,
}

/// The limit of Redis: a hash for each job, sorted sets of what waits and of what is leased, and nothing promised. A
/// queue on Redis cannot be faster than this, and each promise that it keeps costs something.
const RECORDS: [&str; 3] = [
    "
    local now, due = redis.call('TIME')[1], {}
    for i = 1, #ARGV, 6 do
        redis.call('HSET', KEYS[1] .. 'job:' .. ARGV[i], 'queue', ARGV[i + 1], 'kind', ARGV[i + 2],
            'priority', ARGV[i + 3], 'max', ARGV[i + 4], 'payload', ARGV[i + 5],
            'state', 'waiting', 'due', now, 'at', now)
        due[#due + 1], due[#due + 2] = now, ARGV[i]
    end
    redis.call('ZADD', KEYS[1] .. 'waiting', unpack(due))
    return #ARGV / 6",
    "
    local now = redis.call('TIME')[1]
    local ids = redis.call('ZRANGEBYSCORE', KEYS[1] .. 'waiting', '-inf', now, 'LIMIT', 0, ARGV[1])
    if #ids == 0 then return {} end
    redis.call('ZREM', KEYS[1] .. 'waiting', unpack(ids))
    local jobs, leases = {}, {}
    for i, id in ipairs(ids) do
        local job = KEYS[1] .. 'job:' .. id
        jobs[i] = { id, redis.call('HGETALL', job) }
        redis.call('HSET', job, 'state', 'running', 'claim', ARGV[2], 'lease_until', now + 30, 'attempt', 1)
        leases[2 * i - 1], leases[2 * i] = now + 30, id
    end
    redis.call('ZADD', KEYS[1] .. 'leases', unpack(leases))
    return jobs",
    "
    local now, settled = redis.call('TIME')[1], 0
    redis.call('ZREM', KEYS[1] .. 'leases', unpack(ARGV))
    for _, id in ipairs(ARGV) do
        redis.call('HSET', KEYS[1] .. 'job:' .. id, 'state', 'succeeded', 'finished', now)
        settled = settled + 1
    end
    return settled",
];

/// What people write without a queue: a list of ids beside a hash of bodies and one of what runs. No job has a record, a
/// due time or a lease.
const LISTS: [&str; 3] = [
    "
    for i = 1, #ARGV, 6 do
        redis.call('HSET', KEYS[1] .. 'bodies', ARGV[i], ARGV[i + 2] .. ARGV[i + 5])
        redis.call('RPUSH', KEYS[1] .. 'waiting', ARGV[i])
    end
    return #ARGV / 6",
    "
    local jobs = {}
    for i = 1, tonumber(ARGV[1]) do
        local id = redis.call('LPOP', KEYS[1] .. 'waiting')
        if not id then break end
        redis.call('HSET', KEYS[1] .. 'running', id, ARGV[2])
        jobs[i] = { id, { 'payload', redis.call('HGET', KEYS[1] .. 'bodies', id) } }
    end
    return jobs",
    "
    local settled = 0
    for i = 1, #ARGV do
        settled = settled + redis.call('HDEL', KEYS[1] .. 'running', ARGV[i])
        redis.call('RPUSH', KEYS[1] .. 'done', ARGV[i])
    end
    return settled",
];

impl RawRedis {
    /// The limit.
    pub(crate) async fn records(url: &str, namespace: &str) -> Result<Self, Trouble> {
        Self::open(url, namespace, RECORDS).await
    }

    /// What people write without a queue.
    pub(crate) async fn lists(url: &str, namespace: &str) -> Result<Self, Trouble> {
        Self::open(url, namespace, LISTS).await
    }

    async fn open(url: &str, namespace: &str, scripts: [&str; 3]) -> Result<Self, Trouble> {
        let connection = Client::open(url)?.get_multiplexed_async_connection().await?;
        let [enqueue, claim, settle] = scripts.map(Script::new);
        Ok(Self { connection, prefix: format!("{{{namespace}}}:"), enqueue, claim, settle })
    }
}

#[async_trait]
impl Target for RawRedis {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        let mut call = self.enqueue.key(&self.prefix);
        for job in &jobs {
            call.arg(job.id.to_string()).arg(job.queue.as_str()).arg(job.kind.as_str());
            call.arg(job.options.priority).arg(job.options.max_attempts).arg(job.payload.as_bytes());
        }
        let done: usize = call.invoke_async(&mut self.connection.clone()).await?;
        expect("written", done == jobs.len())
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble> {
        let mut call = self.claim.key(&self.prefix);
        call.arg(limit).arg(leasehold_core::ClaimId::generate().to_string());
        let jobs: Vec<(String, HashMap<String, Vec<u8>>)> =
            call.invoke_async(&mut self.connection.clone()).await?;
        let held = |(id, _): (String, HashMap<String, Vec<u8>>)| {
            let id: JobId = id.parse()?;
            Ok((id, LeaseToken::from_uuid(*id.as_uuid())))
        };
        jobs.into_iter().map(held).collect()
    }

    async fn settle(&self, held: Vec<Held>) -> Result<(), Trouble> {
        let mut call = self.settle.key(&self.prefix);
        held.iter().for_each(|(id, _)| {
            call.arg(id.to_string());
        });
        let done: usize = call.invoke_async(&mut self.connection.clone()).await?;
        expect("settled", done == held.len())
    }

    async fn trips(&self) -> Result<Option<u64>, Trouble> {
        Ok(None)
    }
}

/// Removes what a store left, a thousand keys at a time.
pub(crate) async fn clear(url: String, namespace: String) -> Result<(), Trouble> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{{{namespace}}}:*")).arg("COUNT").arg(1_000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).query_async::<()>(&mut connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}
