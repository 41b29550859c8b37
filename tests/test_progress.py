"""Progress in a file or a pipe: a line for every tenth."""

import re

from toymodels import progress


def test_a_line_for_every_tenth_and_the_last_is_the_end(capfd):
    with progress.bar("title", cells=200, steps_per_cell=7, visible=True) as report:
        for _ in range(200):
            report(1)
    lines = capfd.readouterr().err.splitlines()
    counts = [int(re.match(r"title: (\d+) of 200 cells, \d+ s$", line)[1]) for line in lines]
    assert counts == list(range(20, 201, 20))


def test_nothing_where_nothing_is_wanted(capfd):
    with progress.bar("title", cells=2, steps_per_cell=1, visible=False) as report:
        report(2)
    assert capfd.readouterr().err == ""
