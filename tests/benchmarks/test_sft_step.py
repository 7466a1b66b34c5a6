"""What the fine-tuning benchmark says about the times at which the device had nothing to do."""

import re

from benchmarks.sft_step import print_gaps


def test_gaps_by_hand(capsys):
    # microseconds: the third kernel runs inside the second, 10 to 50 and 90 to 95 are idle
    print_gaps([(0, 10, "a"), (50, 90, "b"), (60, 70, "c"), (95, 100, "d")])
    said = capsys.readouterr().out
    assert "4 kernels and copies in 0 ms, idle 0 ms in 2 gaps" in said
    assert re.search(r"between a and b\n.*between b and d", said), "the longest first, and c ends no time of work"
    assert "gaps of 0 to 10 microseconds: 1," in said and "gaps of 10 to 50 microseconds: 1," in said


def test_a_gap_is_spread_over_the_time_it_covers(capsys):
    print_gaps([(1000, 1010, "a"), (1050, 1100, "b")])  # a twentieth takes 5 microseconds
    shares = capsys.readouterr().out.rsplit(": ", 1)[1].split()
    assert shares == ["0"] * 2 + ["100"] * 8 + ["0"] * 10
