use async_trait::async_trait;
use leasehold_core::{JobId, LeaseToken, NewJob};
use leasehold_redis::redis::aio::MultiplexedConnection;
use leasehold_redis::redis::{self, Client, Script};

use crate::Trouble;
use crate::target::{Held, Target, expect};

/// The limit of Redis: a list of ids beside a hash of bodies and one of what runs, no promise but the server's
/// durability, each batch one script. A queue on Redis cannot be faster than this, and each promise that it keeps costs
/// something.
pub(crate) struct RawRedis {
    connection: MultiplexedConnection,
    /// What the names of its keys begin with.
    prefix: String,
    enqueue: Script,
    claim: Script,
    settle: Script,
}

const ENQUEUE: &str = "
    for i = 1, #ARGV, 2 do
        redis.call('HSET', KEYS[1] .. 'bodies', ARGV[i], ARGV[i + 1])
        redis.call('RPUSH', KEYS[1] .. 'waiting', ARGV[i])
    end
    return #ARGV / 2";
const CLAIM: &str = "
    local jobs = {}
    for i = 1, tonumber(ARGV[1]) do
        local id = redis.call('LPOP', KEYS[1] .. 'waiting')
        if not id then break end
        redis.call('HSET', KEYS[1] .. 'running', id, ARGV[2])
        jobs[i] = { id, redis.call('HGET', KEYS[1] .. 'bodies', id) }
    end
    return jobs";
const SETTLE: &str = "
    local settled = 0
    for i = 1, #ARGV do
        settled = settled + redis.call('HDEL', KEYS[1] .. 'running', ARGV[i])
        redis.call('RPUSH', KEYS[1] .. 'done', ARGV[i])
    end
    return settled";

impl RawRedis {
    pub(crate) async fn open(url: &str, namespace: &str) -> Result<Self, Trouble> {
        let connection = Client::open(url)?.get_multiplexed_async_connection().await?;
        let (enqueue, claim, settle) = (Script::new(ENQUEUE), Script::new(CLAIM), Script::new(SETTLE));
        Ok(Self { connection, prefix: format!("{{{namespace}}}:"), enqueue, claim, settle })
    }
}

#[async_trait]
impl Target for RawRedis {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        let mut call = self.enqueue.key(&self.prefix);
        for job in &jobs {
            // What a job has beside its payload takes about as many bytes.
            let body = [job.payload.as_bytes(), job.queue.as_str().as_bytes(), &[b' '; 100]].concat();
            call.arg(job.id.to_string()).arg(body);
        }
        let done: usize = call.invoke_async(&mut self.connection.clone()).await?;
        expect("pushed", done == jobs.len())
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble> {
        let mut call = self.claim.key(&self.prefix);
        call.arg(limit).arg(leasehold_core::ClaimId::generate().to_string());
        let jobs: Vec<(String, Vec<u8>)> = call.invoke_async(&mut self.connection.clone()).await?;
        let held = |(id, _): (String, Vec<u8>)| {
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
        expect("moved", done == held.len())
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
