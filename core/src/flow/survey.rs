use super::progress::{Decision, Known, Progress};

/// What is to be looked at in order to learn how far a flow has come: jobs before those that depend on them, and none that
/// depends on one which was seen not to have ended.
#[derive(Debug)]
pub(crate) struct Survey {
    row: usize,
    job: u32,
    blocked: Vec<bool>,
}

impl Survey {
    pub(crate) fn of(progress: &Progress) -> Self {
        Self { row: 0, job: 0, blocked: vec![false; progress.plan().size() as usize] }
    }

    /// Notes that a job was seen and has not ended.
    pub(crate) fn blocks(&mut self, job: u32) {
        if let Some(blocked) = self.blocked.get_mut(job as usize) {
            *blocked = true;
        }
    }

    /// Up to so many jobs to look at next; none when there are no more.
    pub(crate) fn next(&mut self, progress: &mut Progress, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
        while self.row < progress.last() {
            let members = progress.plan().members(self.row);
            let blocked = match progress.decide(self.row) {
                Decision::Wait(job) => {
                    (self.blocked[job as usize] || progress.known(job) != Known::Open)
                        && !progress.may_fall(self.row, &found)
                }
                _ => false,
            };
            for job in self.job.max(members.start)..members.end {
                if blocked {
                    self.blocked[job as usize] = true;
                } else if progress.known(job) == Known::Open {
                    if found.len() == most {
                        self.job = job;
                        return found;
                    }
                    found.push(job);
                }
            }
            self.row += 1;
        }
        found
    }
}
