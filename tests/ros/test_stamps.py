# SPDX-License-Identifier: Apache-2.0
"""Stamps that are 0, stand still, go back or are of another clock; and those that are only late or overtaken."""

import pytest

from lrm_ros.ros.stamps import CLOCK_NS, Numbers, StampCheck, clock_words

S = 1_000_000_000
NOW = 1_795_000_000 * S
YEARS = 50 * 365 * 86_400 * S


def said(*stamps: float, lag_s: float = 0.01, **more) -> list[str]:
    """Check stamps [s], each message 0.1 s after the one before."""
    check = StampCheck()
    more = {"ahead_ns": CLOCK_NS} | more
    return [
        check.check(NOW + round(stamp * S), NOW + round((0.1 * k + lag_s) * S), **more)
        for k, stamp in enumerate(stamps)
    ]


def test_good_stamps_are_good():
    assert not any(said(0.0, 0.1, 0.2, 0.3))


def test_zero_is_said_each_time():
    check = StampCheck()
    assert all("stamps are 0; let its driver" in check.check(0, NOW, CLOCK_NS) for _ in range(2))


def test_a_stamp_may_repeat_but_not_stand_still():
    assert not any(said(0.0, 0.0, 0.0, 0.3))
    last = said(0.0, 0.0, 0.0, 0.0)
    assert not any(last[:3]) and "stands still: 4 messages in a row" in last[3]


def test_a_jump_back_is_said_once_and_then_the_clock():
    last = said(0.0, 0.1, -100.0, -99.9)
    assert not any(last[:2]) and "went back 100.1 s" in last[2] and "100.2 s behind this host's clock" in last[3]


def test_a_clock_that_was_set_back_with_this_hosts_is_said_once():
    check = StampCheck()
    assert not check.check(NOW, NOW, CLOCK_NS)
    assert "went back 60.0 s" in check.check(NOW - 60 * S, NOW - 60 * S, CLOCK_NS)
    assert not check.check(NOW - 59 * S, NOW - 59 * S, CLOCK_NS)
    assert check.lag_ns == 0


def test_after_a_reset_it_may_go_back():
    assert not any(said(0.0, 0.1, -100.0, -99.9, ahead_ns=None, may_go_back=True))
    assert "went back" in said(0.0, 0.1, -100.0, ahead_ns=None)[2]


def test_an_overtaken_message_is_no_jump():
    assert not any(said(0.0, 0.1, 0.05, 0.2))


def test_a_jump_ahead_is_another_clock_and_the_good_ones_after_it_are_good():
    last = said(0.0, 100.0, 0.2, 0.3)
    assert "99.9 s ahead of this host's clock; synchronise" in last[1] and not any((last[0], *last[2:]))


def test_late_messages_are_not_refused_but_the_least_lag_tells_of_a_clock():
    check = StampCheck()
    for k in range(40):
        come = max(k * S // 10, 3 * S) if 10 <= k < 30 else k * S // 10  # held up for two seconds, then all at once
        assert not check.check(NOW + k * S // 10, NOW + come + S // 100, CLOCK_NS)
        assert check.lag_ns is not None
    assert check.lag_ns == S // 100
    for k in range(40, 80):
        assert not check.check(NOW + k * S // 10, NOW + k * S // 10 + S // 2, CLOCK_NS)
    assert check.lag_ns == S // 2


@pytest.mark.parametrize(
    ("lag_ns", "says"), [(2 * S, "2.0 s behind this"), (-S // 2, "0.5 s ahead of this"), (YEARS, "years behind this")]
)
def test_the_words_name_side_and_cure(lag_ns, says):
    assert says in clock_words(lag_ns) and "use_sim_time" in clock_words(lag_ns)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (range(1, 20), False),
        ([7, 8, 9, 1, 2, 3, 4], False),  # started again
        ([7, 1, 8, 2, 9, 3, 10, 4], True),
        ([1, 1, 2, 2, 3, 3, 4, 4], True),
        ([None] * 20, False),
    ],
)
def test_two_publishers_of_the_same_are_found_by_their_numbers(numbers, says):
    check = Numbers()
    found = [check.several(number, ["elbow"], k / 10) for k, number in enumerate(numbers)][-1]
    assert found == ("elbow" if says else None)


def test_a_publisher_that_is_started_again_now_and_then_is_one():
    check = Numbers()
    assert not any(check.several(1, ["elbow"], k * 0.9) for k in range(10))
    three = [(number, [part]) for number in (100, 1) for part in "abc"]
    assert not any(check.several(number, part, 20.0 + k / 10, 3) for k, (number, part) in enumerate(three))


@pytest.mark.parametrize("publishers", [1, 2])
def test_a_second_publisher_that_is_slow_is_found_where_the_graph_knows_two(publishers):
    check, found = Numbers(), []
    for k in range(80):  # 20 Hz, and once a second another's
        found.append(check.several(100 + k, ["elbow"], k / 20, publishers))
        if k % 20 == 10:
            found.append(check.several(1 + k // 20, ["elbow"], k / 20 + 0.01, publishers))
    assert (found[-1] == "elbow") == (publishers == 2)
    assert not check.several(200, ["elbow"], 80 / 20 + 2.0, publishers), "it has stopped"


def test_two_publishers_may_have_other_parts_but_none_in_common():
    check = Numbers()
    for k in range(1, 20):
        assert check.several(100 + k, ["a", "b"], k / 10, 2) is None
        assert check.several(k, ["c"], k / 10, 2) is None
    found = [
        check.several(k, ["d", "b"], k / 10, 2) or check.several(100 + k, ["a", "b"], k / 10, 2) for k in range(20, 30)
    ]
    assert found[-1] == "b"
