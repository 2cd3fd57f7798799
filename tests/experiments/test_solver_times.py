"""The table of K×K times: which methods it has, and its form."""

import jmtl
from experiments.solver_times import gramian_methods, measure, table


def test_every_gramian_method_is_timed() -> None:
    expected = {
        "pcgrad", "mgda", "gradvac", "imtl_g", "cagrad", "nash", "fairgrad", "aligned", "upgrad",
        "dualproj", "config", "gradnorm", "krum",
    }  # fmt: skip
    assert expected <= set(gramian_methods(3)) <= set(jmtl.METHODS)
    assert "krum" not in gramian_methods(2)


def test_the_table() -> None:
    rows = measure(tasks=(2,), repeats=2)
    assert all(0 < row.milliseconds < 1000 for row in rows)
    lines = table(rows).splitlines()
    assert lines[0] == "| ms a call | K = 2 |"
    assert len(lines) == 2 + len(gramian_methods(2))
    assert all(line.count("|") == 3 for line in lines)
