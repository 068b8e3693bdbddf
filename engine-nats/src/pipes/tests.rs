//! Two ends of a pipe over a connection that loses, doubles and reorders messages.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::flow::{Due, Flow, OVERHEAD, PipeFault, Size};
use super::message::{Header, Kind};
use super::pipe::apart;

const SILENCE: Duration = Duration::from_secs(15);

/// The most messages of a link on their way.
const MESSAGES: usize = 1024;

/// One end, its user, and the messages on their way to it.
struct End {
    flow: Flow,
    queue: VecDeque<Vec<u8>>,
    wrote: Vec<u8>,
    read: Vec<u8>,
    fault: Option<PipeFault>,
    coming: VecDeque<(Header, Vec<u8>)>,
    has_budget: bool,
}

/// Two ends. An operation names the end that does it, or to which a message comes.
struct Both {
    size: Size,
    ends: [End; 2],
    now: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Take,
    Deliver,
    Lose,
    Double,
    Swap,
    End,
    Wait(u64),
    Budget(bool),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        4 => (1..100_000_usize).prop_map(Step::Write),
        4 => (1..10_usize).prop_map(Step::Write),
        6 => Just(Step::Take),
        8 => Just(Step::Deliver),
        1 => Just(Step::Lose),
        1 => Just(Step::Double),
        1 => Just(Step::Swap),
        1 => Just(Step::End),
        2 => (1..6000_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Budget),
    ];
    (0..2_usize, step)
}

impl Both {
    fn new(size: Size) -> Self {
        let end = || End {
            flow: Flow::new(size, SILENCE),
            queue: VecDeque::new(),
            wrote: Vec::new(),
            read: Vec::new(),
            fault: None,
            coming: VecDeque::new(),
            has_budget: true,
        };
        Self {
            size,
            ends: [end(), end()],
            now: Duration::ZERO,
        }
    }

    fn send(&mut self, from: usize, kind: Kind, data: Vec<u8>) {
        let header = self.ends[from].flow.send(kind, data.len());
        self.ends[1 - from].coming.push_back((header, data));
    }

    fn write(&mut self, at: usize, len: usize) {
        let end = &mut self.ends[at];
        let len = len.min(end.flow.room(end.has_budget));
        if len > 0 {
            let first = end.wrote.len();
            let data: Vec<_> = (first..first + len).map(|n| n.to_le_bytes()[0]).collect();
            end.wrote.extend(&data);
            self.send(at, Kind::Data, data);
        }
    }

    fn fail(&mut self, at: usize, fault: PipeFault) {
        self.ends[at].fault = Some(fault);
        if fault != PipeFault::Gone {
            self.send(at, Kind::Gone, Vec::new());
        }
    }

    fn deliver(&mut self, at: usize) {
        let end = &mut self.ends[at];
        let Some((header, data)) = end.coming.pop_front() else {
            return;
        };
        match end.flow.receive(header, data.len(), self.now) {
            Ok(()) if header.kind == Kind::Data => end.queue.push_back(data),
            Ok(()) => {}
            Err(fault) => self.fail(at, fault),
        }
        let bytes: usize = self.ends[at].queue.iter().map(Vec::len).sum();
        assert!(u64::try_from(bytes).unwrap() <= self.size.window);
        assert!(self.ends[at].queue.len() <= self.size.messages());
    }

    fn take(&mut self, at: usize) {
        let end = &mut self.ends[at];
        if let Some(data) = end.queue.pop_front() {
            end.flow.take(data.len());
            end.read.extend(data);
        }
    }

    fn harm(&mut self, at: usize, step: Step) {
        let coming = &mut self.ends[at].coming;
        match step {
            Step::Lose => drop(coming.pop_front()),
            Step::Double => {
                if let Some(again) = coming.front().cloned() {
                    coming.push_front(again);
                }
            }
            _ if coming.len() > 1 => coming.swap(0, 1),
            _ => {}
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        for at in 0..2 {
            if self.ends[at].fault.is_some() {
                continue;
            }
            match self.ends[at].flow.tick(self.now) {
                Ok(Due::Probe) => self.send(at, Kind::Probe, Vec::new()),
                Ok(Due::Nothing) => {}
                Err(fault) => self.fail(at, fault),
            }
        }
    }

    fn step(&mut self, at: usize, step: Step) {
        if self.ends[at].fault.is_some() {
            return;
        }
        match step {
            Step::Write(len) => self.write(at, len),
            Step::Take => self.take(at),
            Step::Deliver => self.deliver(at),
            Step::Lose | Step::Double | Step::Swap => self.harm(at, step),
            Step::End if !self.ends[at].flow.has_ended() => self.send(at, Kind::End, Vec::new()),
            Step::End => {}
            Step::Wait(millis) => self.wait(millis),
            Step::Budget(has) => self.ends[at].has_budget = has,
        }
        if self.ends[at].fault.is_none() && self.ends[at].flow.has_to_tell() {
            self.send(at, Kind::Taken, Vec::new());
        }
    }

    /// Lets all messages come and all data be taken, twice, with silence in between.
    fn settle(&mut self) {
        for _ in 0..3 {
            while self
                .ends
                .iter()
                .any(|end| end.fault.is_none() && !(end.coming.is_empty() && end.queue.is_empty()))
            {
                for at in 0..2 {
                    self.step(at, Step::Deliver);
                    self.step(at, Step::Take);
                }
            }
            self.wait(5000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// What is read is always the begin of what was written. Without harm all comes. An end that does not get all, with the end, learns
    /// that the pipe has failed.
    #[test]
    fn an_end_reads_what_was_written_and_knows_if_some_is_missing(
        size in prop_oneof![Just(Size::LINK), Just(Size::CLIENT)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut both = Both::new(size);
        let mut is_unharmed = true;
        for (at, step) in steps {
            is_unharmed &= !matches!(step, Step::Lose | Step::Double | Step::Swap | Step::Wait(_));
            both.step(at, step);
        }
        both.settle();
        for at in 0..2 {
            let (end, other) = (&both.ends[at], &both.ends[1 - at]);
            prop_assert!(other.wrote.starts_with(&end.read));
            if is_unharmed {
                prop_assert_eq!(end.fault, None);
                prop_assert_eq!(end.read.len(), other.wrote.len());
            }
            prop_assert!(end.fault.is_some() || end.read.len() == other.wrote.len());
            prop_assert!(end.fault.is_some() || end.flow.other_ended() == other.flow.has_ended());
        }
    }
}

#[test]
fn each_lost_doubled_or_reordered_message_ends_the_pipe() {
    for (harm, read) in [(Step::Lose, 0), (Step::Double, 1), (Step::Swap, 0)] {
        let mut both = Both::new(Size::LINK);
        both.step(0, Step::Write(1));
        both.step(0, Step::Write(2));
        both.step(1, harm);
        both.settle();
        assert_eq!(both.ends[1].fault, Some(PipeFault::Sequence), "{harm:?}");
        assert_eq!(both.ends[0].fault, Some(PipeFault::Gone), "{harm:?}");
        assert_eq!(
            both.ends[1].read.len() + both.ends[1].queue.len(),
            read,
            "{harm:?}"
        );
    }
    // Nothing follows the lost message: the question after some silence shows it.
    for lost in [Step::Write(1), Step::End] {
        let mut both = Both::new(Size::LINK);
        both.step(0, lost);
        both.step(1, Step::Lose);
        both.settle();
        assert_eq!(
            both.ends.each_ref().map(|end| end.fault),
            [Some(PipeFault::Gone), Some(PipeFault::Sequence)],
            "{lost:?}"
        );
    }
}

#[test]
fn a_reader_that_takes_nothing_stops_the_other_end() {
    let mut both = Both::new(Size::LINK);
    for _ in 0..2 * MESSAGES {
        both.step(0, Step::Write(1));
        both.step(1, Step::Deliver);
    }
    let (sent, came) = (both.ends[0].wrote.len(), both.ends[1].queue.len());
    assert!(
        sent == came && came < MESSAGES && came > MESSAGES / 2,
        "{sent} {came}"
    );
    assert_eq!(both.ends[0].flow.room(true), 0);
    // Small messages are acknowledged together.
    while !both.ends[1].queue.is_empty() && both.ends[0].coming.is_empty() {
        both.step(1, Step::Take);
    }
    let taken = both.ends[1].read.len();
    assert!(taken > 100 && both.ends[0].coming.len() == 1, "{taken}");
    both.step(0, Step::Deliver);
    assert!(both.ends[0].flow.room(true) > 0);
}

/// Without room in the budget a client has little on its way, and its writer goes on as soon as the reader takes something: the time stands
/// still here, so that nothing is asked.
#[test]
fn a_client_without_budget_has_little_on_its_way_and_goes_on() {
    for writes in [1, 700, 100_000] {
        let mut both = Both::new(Size::CLIENT);
        both.step(0, Step::Budget(false));
        while both.ends[0].wrote.len() < 200_000 {
            let before = both.ends[0].wrote.len();
            while both.ends[0].flow.room(false) > 0 {
                both.step(0, Step::Write(writes));
                assert!(both.ends[0].flow.on_its_way() <= Size::CLIENT.assured);
            }
            assert!(both.ends[0].wrote.len() > before, "{before} of {writes}");
            while both.ends[0].flow.room(false) == 0 {
                let is_idle = both.ends[1].coming.is_empty() && both.ends[1].queue.is_empty();
                assert!(!is_idle || !both.ends[0].coming.is_empty(), "{before}");
                both.step(1, Step::Deliver);
                both.step(1, Step::Take);
                both.step(0, Step::Deliver);
            }
        }
        both.step(0, Step::Budget(true));
        both.settle();
        both.step(0, Step::Write(100_000));
        let most = Size::CLIENT.window - OVERHEAD;
        let wrote = both.ends[0].wrote.len() - both.ends[1].read.len();
        assert_eq!(u64::try_from(wrote).unwrap(), most);
    }
}

#[test]
fn an_end_asks_in_silence_and_fails_when_that_lasts() {
    let mut both = Both::new(Size::LINK);
    both.wait(4999);
    assert!(both.ends[0].coming.is_empty());
    both.wait(1);
    assert_eq!(both.ends[0].coming.len(), 1);
    both.step(0, Step::Deliver);
    // This one answers, the other one gets nothing.
    both.wait(5000);
    both.wait(5000);
    assert_eq!(both.ends[1].fault, Some(PipeFault::Silence));
    assert_eq!(both.ends[0].fault, None);
    assert_eq!(both.ends[0].flow.deadline(), Duration::from_secs(20));
    both.settle();
    assert_eq!(both.ends[0].fault, Some(PipeFault::Gone));
}

#[test]
fn more_than_the_window_or_than_was_sent_is_a_fault() {
    let header = |kind, sent, taken| Header { kind, sent, taken };
    let mut flow = Flow::new(Size::LINK, SILENCE);
    let most = usize::try_from(Size::LINK.window).unwrap() - 256;
    let received = flow.receive(header(Kind::Data, 0, 0), most + 1, Duration::ZERO);
    assert_eq!(received, Err(PipeFault::Window));
    assert_eq!(
        flow.receive(header(Kind::Data, 0, 0), most, Duration::ZERO),
        Ok(())
    );
    let taken = flow.receive(header(Kind::Taken, Size::LINK.window, 1), 0, Duration::ZERO);
    assert_eq!(taken, Err(PipeFault::Window));
    let again = flow.receive(header(Kind::Taken, 0, 0), 0, Duration::ZERO);
    assert_eq!(again, Err(PipeFault::Sequence));
    assert_eq!(
        flow.receive(header(Kind::End, Size::LINK.window, 0), 0, Duration::ZERO),
        Ok(())
    );
    let late = flow.receive(
        header(Kind::Data, Size::LINK.window + 1, 0),
        0,
        Duration::ZERO,
    );
    assert_eq!(late, Err(PipeFault::Window));
}

/// The buffer in which many messages were read is free although a short one waits.
#[test]
fn short_data_keeps_no_buffer() {
    let buffer = Bytes::from(vec![7; 64 << 10]);
    let kept = apart(buffer.slice(100..200));
    assert_eq!(kept[..], [7; 100]);
    assert!(buffer.is_unique());
    // A long one is not copied.
    let kept = apart(buffer.slice(..32 << 10));
    assert_eq!((kept.len(), buffer.is_unique()), (32 << 10, false));
}
