//! Counting without a kernel: what is bounded, what is dropped and counted, what is kept.

use super::*;
use crate::ab::policy::GivenUp;
use crate::ab::spec::Treatment;

fn live() -> Arc<Live> {
    let treatment = Treatment { name: "next".parse().unwrap(), path: "geo/1.1.0".into() };
    Live::new(Spec::new("one".parse().unwrap(), "geo".parse().unwrap(), vec![treatment]).unwrap())
}

#[test]
fn a_million_metrics_are_sixteen() {
    let live = live();
    for number in 0..1_000_000_u32 {
        live.record_event(1, &format!("metric-{number}"), 1.0).unwrap();
    }
    live.record_event(1, "Not a name", 1.0).unwrap();
    assert_eq!(live.dropped(), 1_000_001 - EXPERIMENT_METRICS_MAX as u64);
    assert_eq!(live.metric("metric-3").unwrap()[1].count, 1);
    assert_eq!(live.metric("metric-999999"), None);
    assert_eq!(live.record_event(1, "metric-3", f64::NAN), Err(NotFinite));
    live.record_event(9, "metric-3", 1.0).unwrap();
    assert_eq!(live.dropped(), 1_000_003 - EXPERIMENT_METRICS_MAX as u64, "no such arm");
}

/// 4.3 items 25 and 27: what comes after the end changes nothing.
#[test]
fn what_comes_late_is_dropped_and_counted() {
    let live = live();
    live.record(0, 1.0).unwrap();
    live.called(0, b"unit", Duration::from_millis(3), true);
    live.end();
    live.record(0, 1.0).unwrap();
    live.record_event(0, "rows", 1.0).unwrap();
    live.called(0, b"other", Duration::from_millis(3), false);
    assert_eq!((live.counts()[0].outcomes.fold().count, live.dropped()), (1, 2));
    assert_eq!(live.metric("errors").unwrap()[0].count, 1);
}

#[test]
fn what_is_kept_is_what_was_counted_and_is_counted_once() {
    let mut live = live();
    for number in 0..500_u32 {
        live.record(1, f64::from(number % 2)).unwrap();
        live.record_event(0, "rows", f64::from(number)).unwrap();
        live.called(1, &number.to_le_bytes(), Duration::from_micros(u64::from(number) + 1), true);
    }
    live.state.lock().status = Status::Running;
    let first = serde_json::to_string(&live.stored()).unwrap();
    for _ in 0..100 {
        live = Live::restore(serde_json::from_str(&first).unwrap());
        assert_eq!(serde_json::to_string(&live.stored()).unwrap(), first);
    }
    live.record(1, 1.0).unwrap();
    assert_eq!(live.counts()[1].outcomes.fold().count, 501);
    assert_eq!(live.status(), Status::Running);
    let mark = live.mark();
    live.record(1, 1.0).unwrap();
    assert_ne!(live.mark(), mark, "what has changed is written again");
}

#[test]
fn what_was_on_its_way_is_not_any_more() {
    let kept = |status: Status| {
        let live = live();
        live.state.lock().status = status;
        let restored = Live::restore(live.stored());
        (restored.status(), restored.is_over())
    };
    assert_eq!(kept(Status::Draft), (Status::Cancelled, true));
    let pending = Status::Concluded { arm: 1, promotion: Promotion::Pending };
    let (status, over) = kept(pending);
    let failed = |it: &Status| matches!(it, Status::Concluded { promotion: Promotion::Failed { code, .. }, .. } if code == "ab.interrupted");
    assert!(failed(&status) && over, "{status:?}");
    let rolled_back = Status::RolledBack { why: GivenUp::TimeIsUp };
    assert_eq!(kept(rolled_back.clone()), (rolled_back, true));
}
