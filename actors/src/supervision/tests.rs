//! What a supervisor guarantees: failed children are replaced behind their roles, a hopeless one is not for ever,
//! and nothing that waits in a queue is lost meanwhile.

use themis_messages::limits::HEARTBEAT_LIMIT;

use super::*;
use crate::tree::nodes;

/// Panics when told to, answers otherwise.
struct Fragile {
    incarnation: u64,
}

enum FragileMsg {
    Panic,
    /// Awaits for good: only a kill ends it.
    Hang,
    Ping(Reply<u64>),
}

type Born = Arc<std::sync::atomic::AtomicU64>;

impl Role for Fragile {
    type Msg = FragileMsg;
    type Seed = Born;

    fn start(born: Born) -> Self {
        Self { incarnation: born.fetch_add(1, std::sync::atomic::Ordering::SeqCst) }
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<FragileMsg>,
    ) -> Result<(), ActorProcessingErr> {
        match admitted.message {
            FragileMsg::Panic => panic!("told to"),
            FragileMsg::Hang => std::future::pending().await,
            FragileMsg::Ping(reply) => reply.send(self.incarnation),
        }
        Ok(())
    }
}

struct Family {
    root: ActorCell,
    children: Vec<Arc<Mailbox<FragileMsg>>>,
}

/// A supervisor with so many children.
async fn family(strategy: Strategy, spent: Spent, count: usize) -> Family {
    let mailbox = Mailbox::new("test", 8);
    let node = Node::new("test", strategy, spent);
    let seed = Seed { node, mailbox: Arc::clone(&mailbox), events: Events::default() };
    let (root, _ended) = role::spawn_root::<Supervisor>(seed, &mailbox).await.unwrap();
    let mut children = Vec::new();
    for number in 0..count {
        let queue = Mailbox::new("fragile", 64);
        let child = ChildSpec::role::<Fragile>(format!("child {number}"), &queue, Born::default());
        let started =
            mailbox.ask(ASK_DEADLINE, |reply| SupervisorMsg::Start { child, reply }).await;
        assert_eq!(started, Ok(Ok(())));
        children.push(queue);
    }
    Family { root, children }
}

/// Which incarnation answers: the question waits while one is on its way.
async fn ping(mailbox: &Mailbox<FragileMsg>) -> Result<u64, KernelFault> {
    mailbox.ask(HEARTBEAT_LIMIT, FragileMsg::Ping).await
}

#[tokio::test(start_paused = true)]
async fn a_question_to_a_child_that_fails_is_answered_by_the_next_incarnation() {
    let family = family(Strategy::OneForOne, Spent::Escalate, 1).await;
    let child = &family.children[0];
    for incarnation in 0..RESTARTS_MAX as u64 {
        assert_eq!(ping(child).await, Ok(incarnation));
        child.send(FragileMsg::Panic).unwrap();
    }
    assert_eq!(ping(child).await, Ok(RESTARTS_MAX as u64));
}

#[tokio::test(start_paused = true)]
async fn facts_told_between_two_incarnations_are_heard() {
    let family = family(Strategy::OneForOne, Spent::Escalate, 1).await;
    let child = &family.children[0];
    let (reply, answer) = Reply::channel();
    child.tell(FragileMsg::Panic);
    child.tell(FragileMsg::Panic);
    child.tell(FragileMsg::Ping(reply));
    assert_eq!(answer.await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_is_replaced_when_it_is_killed() {
    let family = family(Strategy::OneForOne, Spent::Escalate, 1).await;
    let child = &family.children[0];
    child.send(FragileMsg::Hang).unwrap();
    tokio::task::yield_now().await;
    child.kill();
    assert_eq!(ping(child).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_child_takes_nobody_along_or_those_that_came_after_it() {
    for (strategy, expected) in
        [(Strategy::OneForOne, [0, 1, 0]), (Strategy::RestForOne, [0, 1, 1])]
    {
        let family = family(strategy, Spent::Escalate, 3).await;
        family.children[1].send(FragileMsg::Panic).unwrap();
        let mut incarnations = Vec::new();
        // The failed one first: when it answers, those that came after it have been ended.
        for index in [1, 0, 2] {
            incarnations.push((index, ping(&family.children[index]).await.unwrap()));
        }
        incarnations.sort_unstable();
        let incarnations: Vec<_> = incarnations.into_iter().map(|(_, it)| it).collect();
        assert_eq!(incarnations, expected, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_intensity_ends_the_supervisor_or_only_the_child() {
    for (spent, survives) in [(Spent::Escalate, false), (Spent::LeaveDead, true)] {
        let family = family(Strategy::OneForOne, spent, 2).await;
        let [child, sibling] = &family.children[..] else { panic!("two children") };
        for _ in 0..=RESTARTS_MAX {
            child.tell(FragileMsg::Panic);
        }
        if survives {
            // Its queue is closed, which tells whoever asks.
            let stopped = Err(KernelFault::Stopped { role: "fragile" });
            assert_eq!(ping(child).await, stopped);
            assert_eq!(ping(sibling).await, Ok(0), "none of its business");
        } else {
            // Nobody is there to close its queue: the owner of the tree does that.
            let no_answer = KernelFault::NoAnswer { role: "fragile", limit: HEARTBEAT_LIMIT };
            assert_eq!(ping(child).await, Err(no_answer));
        }
        let alive = family.root.get_status() == ractor::ActorStatus::Running;
        assert_eq!(alive, survives, "{spent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_wait_longer_and_longer() {
    let family = family(Strategy::OneForOne, Spent::Escalate, 1).await;
    let child = &family.children[0];
    let mut waits = Vec::new();
    for _ in 0..RESTARTS_MAX {
        let before = Instant::now();
        child.send(FragileMsg::Panic).unwrap();
        ping(child).await.unwrap();
        waits.push(before.elapsed().as_millis());
    }
    assert_eq!(waits, [0, 50, 100, 200, 400]);
}

/// A fault at the bottom may be repeated so often before the kernel gives up: the levels multiply.
#[test]
fn the_intensities_along_each_path_stay_small() {
    for node in [nodes::SERVICES, nodes::CONTROL] {
        let tries = (node.intensity.restarts + 1) * (nodes::KERNEL.intensity.restarts + 1);
        assert!(tries <= 36, "{}: {tries}", node.name);
        assert_eq!(node.spent, Spent::Escalate);
    }
    assert_eq!(nodes::PLUGINS.spent, Spent::LeaveDead, "a plugin's actor never ends the kernel");
}
