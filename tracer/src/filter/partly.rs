//! A program on a packet of which not everything is known: true, false, or
//! neither can be said. Each test is run by the evaluator that the kernel side
//! runs; only what they combine to is worked out here.

use tracer_common::filter::{Filter, MAX_OPS, Op, code};

/// A program, and each of its tests alone.
#[derive(Clone, Debug)]
pub struct Partly {
    whole: Filter,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    And,
    Or,
    Not,
    /// A program of one test.
    Test(Box<Filter>),
}

impl Partly {
    pub fn new(whole: Filter) -> Self {
        let len = (whole.len as usize).min(MAX_OPS);
        let steps = whole.ops[..len].iter().map(|op| match op.code {
            code::AND => Step::And,
            code::OR => Step::Or,
            code::NOT => Step::Not,
            _ => Step::Test(Box::new(alone(op, whole.needs))),
        });
        Self {
            steps: steps.collect(),
            whole,
        }
    }

    /// The program, for packets of which all is known.
    pub fn whole(&self) -> &Filter {
        &self.whole
    }

    /// What can be said where `test` says of each test what is known.
    pub fn decide(&self, test: impl Fn(&Filter) -> Option<bool>) -> Option<bool> {
        let mut stack: Vec<Option<bool>> = Vec::new();
        for step in &self.steps {
            let value = match step {
                Step::Test(alone) => test(alone),
                Step::Not => stack.pop()?.map(|value| !value),
                Step::And | Step::Or => {
                    let (right, left) = (stack.pop()?, stack.pop()?);
                    // What one side alone decides.
                    let decisive = matches!(step, Step::Or);
                    match (left, right) {
                        (Some(left), _) if left == decisive => Some(decisive),
                        (_, Some(right)) if right == decisive => Some(decisive),
                        (Some(_), Some(_)) => Some(!decisive),
                        _ => None,
                    }
                }
            };
            stack.push(value);
        }
        stack.pop()?
    }
}

fn alone(op: &Op, needs: u32) -> Filter {
    let mut filter = Filter {
        len: 1,
        needs,
        ..Filter::NONE
    };
    filter.ops[0] = *op;
    filter
}
