//! Programs that do not end, or not with everything they started. None of these tests would come back if
//! the limit did not work.

use super::fixtures::{GOOD, Mock, SHORT, write};
use crate::admission::gpg::GpgRunError;

fn assert_timed_out(mock: &Mock) {
    assert_eq!(mock.run().unwrap_err(), GpgRunError::TimedOut { limit: SHORT });
    assert_eq!(mock.verdict(), Err("gpg.timed_out"));
}

#[test]
fn one_that_hangs_is_killed() {
    let mock = Mock::new("echo $$ > \"$DIR/pid\"; exec sleep infinity").limit(SHORT);
    assert_timed_out(&mock);
    mock.assert_gone("pid");
}

#[test]
fn one_that_hangs_after_a_good_word_is_killed() {
    let mock = Mock::new("cat \"$DIR/out\"; exec sleep infinity").limit(SHORT);
    write(&mock.path("out"), GOOD.as_bytes());
    assert_timed_out(&mock);
}

#[test]
fn one_that_ignores_every_signal_it_can_is_killed() {
    let mock = Mock::new("trap '' HUP INT TERM PIPE; echo $$ > \"$DIR/pid\"; exec sleep infinity");
    let mock = mock.limit(SHORT);
    assert_timed_out(&mock);
    mock.assert_gone("pid");
}

#[test]
fn a_grandchild_that_hangs_with_it_is_killed() {
    let mock = Mock::new("sleep infinity & echo $! > \"$DIR/pid\"; exec sleep infinity");
    let mock = mock.limit(SHORT);
    assert_timed_out(&mock);
    mock.assert_gone("pid");
}

#[test]
fn a_grandchild_that_holds_the_pipes_is_killed() {
    let mock = Mock::new("cat \"$DIR/out\"; sleep infinity & echo $! > \"$DIR/pid\"; exit 0");
    write(&mock.path("out"), GOOD.as_bytes());
    let mock = mock.limit(SHORT);
    // gpg itself has ended well, but whose words came through the pipes is not known.
    assert_timed_out(&mock);
    mock.assert_gone("pid");
}

#[test]
fn a_grandchild_without_pipes_delays_nothing_and_is_killed() {
    let mock = Mock::new(
        "cat \"$DIR/out\"; sleep infinity >/dev/null 2>&1 & echo $! > \"$DIR/pid\"; exit 0",
    );
    write(&mock.path("out"), GOOD.as_bytes());
    assert_eq!(mock.run().unwrap().exit_code, Some(0));
    mock.assert_gone("pid");
    assert_eq!(mock.verdict(), Ok(()));
}

#[test]
fn a_grandchild_that_left_the_group_holds_up_nothing() {
    let mock = Mock::new("setsid sleep infinity & echo $! > \"$DIR/pid\"; exit 0").limit(SHORT);
    assert_eq!(mock.run().unwrap_err(), GpgRunError::TimedOut { limit: SHORT });
    // It is beyond reach here, so the test puts it away.
    let pid = std::fs::read_to_string(mock.path("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    mock.assert_gone("pid");
}

#[test]
fn one_that_closes_its_pipes_and_hangs_is_killed() {
    let mock = Mock::new("echo $$ > \"$DIR/pid\"; exec >&- 2>&- sleep infinity").limit(SHORT);
    assert_timed_out(&mock);
    mock.assert_gone("pid");
}

#[test]
fn one_that_closes_its_pipes_and_ends_has_said_nothing() {
    let mock = Mock::new("exec >&- 2>&-; exit 0");
    assert_eq!(mock.run().unwrap().output.status.total(), 0);
    assert_eq!(mock.verdict(), Err("gpg.no_proof"));
}

#[test]
fn no_time_at_all_is_a_limit_too() {
    let mock = Mock::printing(GOOD, "", 0).limit(std::time::Duration::ZERO);
    assert_eq!(mock.verdict(), Err("gpg.timed_out"));
    let for_ever = Mock::printing(GOOD, "", 0).limit(std::time::Duration::MAX);
    assert_eq!(for_ever.verdict(), Ok(()));
}
