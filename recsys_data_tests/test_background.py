import os
import sys
import threading

import pytest

from recsys_data.background import NICENESS, gives_way, in_background


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority belongs to the whole process")
def test_work_in_the_background_gives_way_and_who_waits_for_it_does_not() -> None:
    before = niceness()
    assert in_background(niceness) == max(before, NICENESS)
    assert gives_way(niceness)() == max(before, NICENESS)
    assert niceness() == before


def test_arguments_results_and_errors_are_passed_on() -> None:
    assert in_background(divmod, 7, 3) == (2, 1)
    assert in_background(sorted, [1, 3, 2], reverse=True) == [3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        in_background(divmod, 7, 0)
