//! Questions to netlink, answered on a thread of their own: a table can be
//! large, and records do not wait.

use std::{
    collections::HashMap,
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{
    facts,
    find::{self, Finding},
    question::Question,
};

/// When a question that still comes up is asked again: the reason can be
/// another by now.
const AGAIN: Duration = Duration::from_secs(30);
/// Most questions that wait for an answer, and most that are remembered.
const MAX_OPEN: usize = 64;
const MAX_ASKED: usize = 4096;
/// An answer that took longer than this is followed by a rest.
const LONG: Duration = Duration::from_millis(100);
/// The rest, in times of what the answer took.
const REST: u32 = 4;

/// The answer to a question; `None` where there is none to give.
pub type Answered = (Question, Option<Finding>);

/// See the module.
pub struct Inquiry {
    questions: Sender<Question>,
    answers: Receiver<Answered>,
    asked: HashMap<Question, Instant>,
    open: usize,
}

impl Inquiry {
    /// Starts the thread; it ends with the `Inquiry`.
    pub fn start() -> io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        thread::Builder::new()
            .name("inquiry".to_owned())
            .spawn(move || answer(&asked, &answered))?;
        Ok(Self {
            questions,
            answers,
            asked: HashMap::new(),
            open: 0,
        })
    }

    /// Asks, unless it was asked not long ago or too much is open.
    pub fn ask(&mut self, question: Question) {
        let now = Instant::now();
        let recent = |asked: &Instant| now.duration_since(*asked) < AGAIN;
        if self.asked.get(&question).is_some_and(recent) || self.open >= MAX_OPEN {
            return;
        }
        if self.asked.len() >= MAX_ASKED {
            self.asked.retain(|_, asked| recent(asked));
            if self.asked.len() >= MAX_ASKED {
                return;
            }
        }
        if self.questions.send(question).is_ok() {
            self.asked.insert(question, now);
            self.open += 1;
        }
    }

    /// The answers that have come; waits for those to come, but no longer than
    /// this.
    pub fn answers(&mut self, patience: Duration) -> Vec<Answered> {
        let until = Instant::now() + patience;
        let mut answers: Vec<Answered> = self.answers.try_iter().collect();
        while answers.len() < self.open {
            let left = until.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) => answers.push(answer),
                Err(_) => break,
            }
        }
        self.open -= answers.len();
        answers
    }
}

fn answer(questions: &Receiver<Question>, answers: &Sender<Answered>) {
    for question in questions {
        let began = Instant::now();
        let finding = match facts::gather(&question) {
            Ok(facts) => find::find(&question.what, &facts),
            Err(unknown) => {
                debug!("no reason for {question:?}: {unknown}");
                None
            }
        };
        if answers.send((question, finding)).is_err() {
            return;
        }
        let took = began.elapsed();
        if took > LONG {
            thread::sleep(took * REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::question::What, *};

    #[test]
    fn a_question_is_asked_once() {
        let mut inquiry = Inquiry::start().unwrap();
        // Of a network namespace that is not there.
        let question = Question {
            netns: 1,
            what: What::Address {
                address: "fd00::1".parse().unwrap(),
                oif: 0,
            },
        };
        inquiry.ask(question);
        inquiry.ask(question);
        assert_eq!(inquiry.open, 1);
        let answers = inquiry.answers(Duration::from_secs(60));
        assert_eq!(answers, [(question, None)]);
        inquiry.ask(question);
        assert_eq!(inquiry.open, 0);
        assert!(inquiry.answers(Duration::from_secs(60)).is_empty());
    }
}
