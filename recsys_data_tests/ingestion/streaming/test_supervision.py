from recsys_data.ingestion.streaming.consumer_lease import LEAD_SECONDS, ConsumerRun, Holder, decide

NOW = 1000.0


def test_waiting_events_start_a_consumer():
    assert decide(NOW, 1, None, False, []).start


def test_an_empty_log_starts_nothing():
    assert not decide(NOW, 0, None, False, []).start


def test_a_consumer_that_is_starting_is_not_started_twice():
    assert not decide(NOW, 1, None, False, [ConsumerRun(age=3.0)]).start


def test_a_run_that_never_took_the_lock_is_given_up():
    assert decide(NOW, 1, None, False, [ConsumerRun(age=61.0)]).start


def test_a_run_that_began_and_does_not_take_the_lock_is_given_up_sooner():
    assert not decide(NOW, 1, None, False, [ConsumerRun(age=20.0, begun=14.0)]).start
    assert decide(NOW, 1, None, False, [ConsumerRun(age=20.0, begun=16.0)]).start


def test_a_live_consumer_is_left_alone_until_it_is_about_to_hand_over():
    assert not decide(NOW, 9, Holder(7, NOW + LEAD_SECONDS + 1), False, [ConsumerRun(age=500.0)]).start
    assert decide(NOW, 9, Holder(7, NOW + LEAD_SECONDS - 1), False, [ConsumerRun(age=500.0)]).start


def test_a_successor_is_requested_once():
    holder = Holder(7, NOW + 5)
    assert not decide(NOW, 9, holder, True, [ConsumerRun(age=500.0)]).start
    assert not decide(NOW, 9, holder, False, [ConsumerRun(age=4.0), ConsumerRun(age=500.0)]).start


def test_a_consumer_by_hand_is_never_pushed_aside():
    assert not decide(NOW, 9, Holder(7), False, []).start


def test_failures_in_a_row_wait_twice_as_long_each_time():
    def failures(count: int, ended: float) -> list[ConsumerRun]:
        return [ConsumerRun(age=ended + 2 + 10 * n, ended=ended + 10 * n, failed=True) for n in range(count)]

    assert not decide(NOW, 1, None, False, failures(1, 4.0)).start
    assert decide(NOW, 1, None, False, failures(1, 6.0)).start
    assert not decide(NOW, 1, None, False, failures(3, 19.0)).start
    assert decide(NOW, 1, None, False, failures(3, 21.0)).start
    assert decide(NOW, 1, None, False, failures(8, 301.0)).start


def test_a_success_ends_the_waiting():
    runs = [ConsumerRun(age=3.0, ended=1.0), ConsumerRun(age=9.0, ended=5.0, failed=True)]
    assert decide(NOW, 1, None, False, runs).start
