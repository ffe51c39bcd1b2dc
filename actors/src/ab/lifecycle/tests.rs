//! Every event in every status.

use expect_test::expect;

use super::*;

#[test]
fn what_is_over_stays_over() {
    let failed =
        || Event::PromotionFailed { code: "load.refused".to_owned(), reason: "no".to_owned() };
    let concluded = |promotion| Status::Concluded { arm: 1, promotion };
    let statuses = [
        Status::Draft,
        Status::Running,
        concluded(Promotion::Pending),
        concluded(Promotion::Promoted),
        Status::Running.step(Event::Won { arm: 1 }).and_then(|it| it.step(failed())).unwrap(),
        Status::RolledBack { why: GivenUp::TimeIsUp },
        Status::Cancelled,
    ];
    let events = [
        Event::Start,
        Event::Won { arm: 1 },
        Event::Won { arm: 2 },
        Event::GaveUp(GivenUp::ControlIsBetter),
        Event::Cancel,
        Event::Promoted,
        failed(),
    ];
    let mut trace = String::new();
    for status in &statuses {
        for event in &events {
            if let Ok(next) = status.step(event.clone()) {
                assert!(!status.is_over() || next.is_over(), "{status:?} {event:?}");
                trace += &format!("{status:?} + {event:?} = {next:?}\n");
            }
        }
    }
    expect![[r#"
        Draft + Start = Running
        Draft + Cancel = Cancelled
        Running + Won { arm: 1 } = Concluded { arm: 1, promotion: Pending }
        Running + Won { arm: 2 } = Concluded { arm: 2, promotion: Pending }
        Running + GaveUp(ControlIsBetter) = RolledBack { why: ControlIsBetter }
        Running + Cancel = Cancelled
        Concluded { arm: 1, promotion: Pending } + Promoted = Concluded { arm: 1, promotion: Promoted }
        Concluded { arm: 1, promotion: Pending } + PromotionFailed { code: "load.refused", reason: "no" } = Concluded { arm: 1, promotion: Failed { code: "load.refused", reason: "no" } }
        Concluded { arm: 1, promotion: Failed { code: "load.refused", reason: "no" } } + Won { arm: 1 } = Concluded { arm: 1, promotion: Pending }
    "#]].assert_eq(&trace);
}

#[test]
fn a_status_survives_being_written_down() {
    let status = Status::Concluded {
        arm: 2,
        promotion: Promotion::Failed { code: "a.b".to_owned(), reason: "c".to_owned() },
    };
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    assert_eq!(
        Status::Draft.step(Event::Promoted).unwrap_err().to_string(),
        "the experiment is draft"
    );
}
