use std::collections::VecDeque;

use crate::name::QueueName;

/// From which of its queues a worker takes jobs first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QueueChoice {
    /// As if they were one queue: by priority and due time over all of them (clause C6), in one call.
    #[default]
    Merged,
    /// In the order in which they were named: from a later one only what the earlier ones leave room for.
    Strict,
    /// By lot, drawn anew for each claim: the weights say how often which queue comes first, in the order in
    /// which the queues were named. A weight of 0 counts as the smallest chance there is; one that is missing as 1.
    Weighted(Vec<u32>),
    /// As many from each, beginning with another one each time; what one does not use is for the others.
    Parallel,
}

/// What to ask for, one call after the other: from these queues so many jobs at most.
pub(super) type Turn = VecDeque<(Vec<QueueName>, usize)>;

impl QueueChoice {
    /// What to ask for when so many slots are free; `turn` counts the times it was asked.
    pub(super) fn turn(&self, queues: &[QueueName], free: usize, turn: usize) -> Turn {
        let alone = |queue: &QueueName, most| (vec![queue.clone()], most);
        match self {
            _ if queues.len() < 2 => Turn::from([(queues.to_vec(), free)]),
            Self::Merged => Turn::from([(queues.to_vec(), free)]),
            Self::Strict => queues.iter().map(|queue| alone(queue, free)).collect(),
            Self::Weighted(weights) => drawn(queues, weights).map(|queue| alone(queue, free)).collect(),
            Self::Parallel => {
                let mut from = queues.to_vec();
                from.rotate_left(turn % queues.len());
                let share = free.div_ceil(queues.len());
                let shares = from.iter().map(|queue| alone(queue, share));
                shares.chain(from.iter().map(|queue| alone(queue, free))).collect()
            }
        }
    }
}

/// The queues in an order by lot (weighted sampling by exponential keys: Efraimidis and Spirakis, 2006).
fn drawn<'a>(queues: &'a [QueueName], weights: &[u32]) -> impl Iterator<Item = &'a QueueName> {
    let key = |place: usize| {
        let weight = weights.get(place).copied().unwrap_or(1);
        -(1.0 - fastrand::f64()).ln() / f64::from(weight).max(f64::MIN_POSITIVE)
    };
    let mut lots: Vec<_> = queues.iter().enumerate().map(|(place, queue)| (key(place), queue)).collect();
    lots.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    lots.into_iter().map(|(_, queue)| queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Vec<QueueName> {
        ["a", "b", "c"].map(|name| QueueName::new(name).expect("a name")).to_vec()
    }

    fn told(turn: &Turn) -> Vec<(String, usize)> {
        let names =
            |queues: &[QueueName]| queues.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        turn.iter().map(|(queues, most)| (names(queues), *most)).collect()
    }

    #[test]
    fn asks_as_it_was_told_to() {
        let asked = |choice: QueueChoice, turn| told(&choice.turn(&queues(), 7, turn));
        let all = |names: [&str; 3], most| names.map(|name| (name.to_owned(), most)).to_vec();
        assert_eq!(asked(QueueChoice::Merged, 0), [("a+b+c".to_owned(), 7)]);
        assert_eq!(asked(QueueChoice::Strict, 5), all(["a", "b", "c"], 7));
        let second = [all(["b", "c", "a"], 3), all(["b", "c", "a"], 7)].concat();
        assert_eq!(asked(QueueChoice::Parallel, 1), second);
        assert_eq!(asked(QueueChoice::Parallel, 4), second);
    }

    #[test]
    fn draws_by_weight() {
        let first = |weights: &[u32]| {
            let drawn = |_| drawn(&queues(), weights).next().expect("one").to_string();
            let drawn: Vec<_> = (0..10_000).map(drawn).collect();
            ["a", "b", "c"].map(|name| drawn.iter().filter(|first| *first == name).count())
        };
        let [a, b, c] = first(&[6, 3]);
        assert!((5_500..6_500).contains(&a) && (2_500..3_500).contains(&b) && (700..1_300).contains(&c));
        assert_eq!(first(&[0, 1, 0])[1], 10_000);
    }
}
