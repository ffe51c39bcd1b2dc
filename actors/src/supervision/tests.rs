//! What a supervisor guarantees: a failed child is replaced behind its role, and a hopeless one is not for ever.

use super::*;

/// Panics when told to, answers otherwise.
struct Fragile;

enum FragileMsg {
    Panic,
    Ping(Reply<&'static str>),
}

impl Actor for Fragile {
    type Msg = Admitted<FragileMsg>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        admitted: Self::Msg,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match admitted.message {
            FragileMsg::Panic => panic!("told to"),
            FragileMsg::Ping(reply) => reply.send("pong"),
        }
        Ok(())
    }
}

async fn supervised(spent: Spent) -> (ActorRef<Admitted<SupervisorMsg>>, Arc<Mailbox<FragileMsg>>) {
    let arguments = Arguments { name: "test", spent };
    let (root, _ended) = Actor::spawn(None, Supervisor, arguments).await.unwrap();
    let supervisor = Mailbox::new("test", 8);
    supervisor.connect(RactorIncarnation(root.clone()));
    let mailbox = Mailbox::new("fragile", 64);
    let child = ChildSpec::role("fragile", Arc::clone(&mailbox), || (Fragile, ()));
    let started = supervisor.ask(ASK_DEADLINE, |reply| SupervisorMsg::Start { child, reply }).await;
    assert_eq!(started, Ok(Ok(())));
    (root, mailbox)
}

/// Asks until an incarnation answers; each try waits for a fact, the answer or the actor's end.
async fn ping(mailbox: &Mailbox<FragileMsg>) -> bool {
    for _ in 0..10_000 {
        if mailbox.ask(ASK_DEADLINE, FragileMsg::Ping).await.is_ok() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn a_failed_child_is_replaced_behind_its_role() {
    let (_root, mailbox) = supervised(Spent::Escalate).await;
    for _ in 0..RESTARTS_MAX {
        mailbox.send(FragileMsg::Panic).unwrap();
        assert!(ping(&mailbox).await);
    }
}

#[tokio::test]
async fn a_spent_intensity_ends_the_supervisor_or_only_the_child() {
    for (spent, survives) in [(Spent::Escalate, false), (Spent::LeaveDead, true)] {
        let (root, mailbox) = supervised(spent).await;
        for _ in 0..RESTARTS_MAX {
            mailbox.send(FragileMsg::Panic).unwrap();
            assert!(ping(&mailbox).await);
        }
        mailbox.send(FragileMsg::Panic).unwrap();
        assert!(!ping(&mailbox).await);
        let alive = root.get_status() == ractor::ActorStatus::Running;
        assert_eq!(alive, survives, "{spent:?}");
    }
}
