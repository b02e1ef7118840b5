use super::plan::{Plan, Span};

/// Who depends on a job: the plan read the other way round.
///
/// A balanced tree over the spans that jobs depend on, in the order of their beginnings, so that one job that very many
/// depend on, and one that depends on very many, take one entry each.
#[derive(Debug)]
pub(super) struct Dependents {
    links: Vec<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    from: u32,
    to: u32,
    row: u32,
    succeeds: bool,
    /// The furthest end of all links below and of this one.
    furthest: u32,
}

impl Dependents {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut links: Vec<Link> = (0_u32..)
            .zip(plan.rows())
            .flat_map(|(row, of)| {
                of.links().map(move |((from, to), succeeds)| Link { from, to, row, succeeds, furthest: to })
            })
            .collect();
        links.sort_by_key(|link| link.from);
        spread(&mut links);
        Self { links }
    }

    /// About how much memory it takes, and what it is the reverse of.
    pub(super) fn bytes(&self) -> usize {
        self.links.len() * (size_of::<Link>() + size_of::<Span>())
    }

    /// Tells each row that depends on this job, and whether the job is to succeed for it.
    pub(super) fn each(&self, job: u32, told: &mut impl FnMut(usize, bool)) {
        visit(&self.links, job, told);
    }
}

/// The middle of a part of the links is its root, and what is before and behind it are its branches.
fn spread(links: &mut [Link]) -> u32 {
    let middle = links.len() / 2;
    let Some((before, [root, behind @ ..])) = links.split_at_mut_checked(middle) else { return 0 };
    root.furthest = root.to.max(spread(before)).max(spread(behind));
    root.furthest
}

fn visit(links: &[Link], job: u32, told: &mut impl FnMut(usize, bool)) {
    let middle = links.len() / 2;
    let Some((before, [root, behind @ ..])) = links.split_at_checked(middle) else { return };
    if root.furthest <= job {
        return;
    }
    visit(before, job, told);
    if root.from <= job {
        if job < root.to {
            told(root.row as usize, root.succeeds);
        }
        visit(behind, job, told);
    }
}
