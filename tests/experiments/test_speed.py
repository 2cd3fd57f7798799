"""`speed`: the arithmetic of its tables and floors, where it runs, and what it refuses."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import cli
from experiments.commands import Speed, parse
from experiments.problems.multi_digits import PROBLEM
from experiments.speed import aggregation, cells, clock, command, floor, report, seeds
from experiments.speed.clock import Spread
from experiments.speed.floor import Cost, Passes, Rates
from experiments.speed.models import CLASSES, MODELS, Sizes
from experiments.speed.options import Options, helps
from experiments.speed.options import parse as light_parse
from experiments.speed.steps import all_strategies, make_method, strategies_of

ROOT = Path(__file__).parents[2]

# 1,000 operations a second (500 at the highest precision); 100 bytes a second, 400 from caches.
RATES = Rates(1000.0, 500.0, ((10, 400.0), (1000, 100.0)))
PASSES = Passes(
    forward=(Cost(300, 60, 2000), Cost(350, 70, 2000)),
    both=(Cost(900, 260, 2000), Cost(1050, 290, 2000)),
    shared=10,
    own=2,
)
"""A task's backward pass is 600 operations and 200 bytes; a second head adds 50 and 10 forward,
150 and 30 in all."""


# The floor


def of(method, k):
    return floor.parts(PASSES, k, make_method(method, k))


def test_the_floor_of_equal_weights_by_hand():
    costs = of("equal", 3)
    assert costs["forward"][:2] == (400, 80)
    assert costs["backward"][:2] == (1200 - 400, 320 - 80)
    # 16 parameters of Adam: 12 operations, 28 bytes each; 16 · 16 bytes are beyond the caches.
    assert costs["update"][:2] == (192, 448)
    least = floor.floor(costs, RATES)
    assert least == pytest.approx({"forward": 0.8, "backward": 2.4, "update": 4.48})


def test_the_floor_of_a_gramian_method_by_hand():
    costs = of("pcgrad", 3)
    assert costs["backward"][:2] == (3 * 600, 3 * 200)
    assert costs["Gramian"] == Cost(3 * 4 * 10, 120, 120, True)
    assert costs["combination"] == Cost(60, 160, 160, True)
    least = floor.floor(costs, RATES)
    assert least["backward"] == pytest.approx(6.0)
    assert least["Gramian"] == pytest.approx(1.2)
    assert sum(least.values()) == pytest.approx(0.8 + 6.0 + 1.2 + 1.6 + 4.48)


def test_what_other_methods_do_beside_or_without():
    assert "Gramian" not in of("graddrop", 2)
    assert "combination" in of("graddrop", 2)
    assert of("famo", 2)["forward"][:2] == (2 * 350, 2 * 70)
    assert of("famo", 2)["backward"] == of("equal", 2)["backward"]


def test_operations_decide_where_they_take_longer():
    assert floor.seconds(Cost(3000, 100, 2000), RATES) == pytest.approx(3.0)
    assert floor.seconds(Cost(3000, 100, 2000, True), RATES) == pytest.approx(6.0)
    assert floor.seconds(Cost(3, 100, 5), RATES) == pytest.approx(0.25)


@pytest.mark.parametrize(("footprint", "rate"), [(1, 400), (10, 400), (11, 100), (5000, 100)])
def test_small_parts_have_the_bandwidth_of_caches(footprint, rate):
    assert floor.bandwidth(RATES, footprint) == rate


def test_an_array_that_only_waits_for_its_launch_sets_no_bandwidth():
    rates = RATES._replace(bandwidth=((10, 5.0), (1000, 100.0)))
    assert floor.bandwidth(rates, 1) == 100


def test_a_models_passes_are_counted():
    b, d, h = 64, 48, 32
    passes = floor.count_passes(Sizes("mlp", {"hidden": (h,)}, (d,), b), "float32")
    assert (passes.shared, passes.own) == ((d + 1) * h, (h + 1) * CLASSES)
    encoder, head = 2 * b * d * h, 2 * b * h * CLASSES
    one, two = passes.forward
    assert encoder + head <= one.operations <= 1.3 * (encoder + head)
    assert head <= two.operations - one.operations <= 2 * head
    # Backward: the kernel's gradient in the encoder, and both products in the head.
    backward = passes.both[0].operations - one.operations
    assert encoder + 2 * head <= backward <= 1.3 * (encoder + 2 * head)
    arguments = 4 * (b * d + passes.shared + passes.own)
    assert passes.both[0].bytes > arguments
    assert passes.both[0].footprint > arguments


# Times and tables


def test_programs_are_timed_in_turn(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def program(name, times):
        times = iter(times)

        def run(n):
            order.append((name, n))
            now[0] += n * next(times)

        return run

    # One loads and one counts; then a round is one to warm and one to time.
    a = program("a", [9, 1, 5, 1, 5, 3, 5, 2])
    b = program("b", [9, 4, 6, 4, 8])
    found = clock.interleaved([a, b], repeats=3, seconds=2.5)
    assert found[0] == Spread(2, 1, 1.5, 2.5)
    assert found[1] == Spread(6, 4, 5, 7)
    assert order[:4] == [("a", 1), ("a", 1), ("b", 1), ("b", 1)]
    assert order[4:] == [("a", 1), ("a", 3), ("b", 1)] * 3


def spread(seconds):
    return Spread(seconds, seconds, seconds / 2, seconds * 2)


def timed(source, method, strategy="auto"):
    return cells.Timed(source, method, strategy, lambda n: None, 1.5, 2.5, None)


CELL = cells.Cell("mlp", 3, ("pcgrad",))
TIMED = [
    timed("jmtl", "equal"),
    timed("jmtl", "pcgrad", "unroll"),
    timed("torch loop", "pcgrad", ""),
]


def rows():
    return cells.rows(CELL, PASSES, RATES, TIMED, [spread(10), spread(28.16), spread(40)])


def test_ratios_are_to_equal_weights_and_to_the_methods_own_floor():
    equal, ours, loop = rows()
    assert (equal.of_equal, ours.of_equal, loop.of_equal) == pytest.approx((1, 2.816, 4))
    assert (equal.floor, ours.floor) == pytest.approx((7680, 14080))
    assert (equal.of_floor, ours.of_floor) == pytest.approx((10 / 7.68, 2))
    assert loop.floor == ours.floor
    assert (ours.milliseconds, ours.low, ours.high) == (28160, 14080, 56320)
    assert ours.parts["backward"] == pytest.approx(6000)
    assert (ours.batch, ours.tasks, ours.megabytes, ours.compile_seconds) == (128, 3, 1.5, 2.5)


def test_seed_throughput():
    found = seeds.throughput("mlp", 2, "float32", "pcgrad", 8, spread(4), spread(2), 3.0)
    assert found.vmap == 8 * seeds.STEPS / 4
    assert found.alone == seeds.STEPS / 2
    assert found.ratio == 4 / (8 * 2) == found.alone / found.vmap
    (line,) = report.seeds_table([found])[2]
    assert line[-2:] == ["3.00", report.digits(found.vmap / 3)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (99.95, "100.0"),
        (12.345, "12.3"),
        (0.12345, "0.123"),
        (0.00012345, "0.0001"),
        (0, "0"),
        (float("nan"), ""),
        (None, ""),
    ],
)
def test_digits(value, text):
    assert report.digits(value) == text


def test_tables_have_a_cell_a_column_and_align():
    table = report.steps_table(rows())
    assert all(len(line) == len(table[1]) for line in table[2])
    title, head, rule, *lines = report.plain(table).splitlines()
    assert title == "training steps"
    assert len(lines) == 3
    assert set(rule) == {"-"}
    ends = {line.rindex(" MB") + 3 for line in [head]}
    assert ends == {line.rindex("1.50") + 4 for line in lines}
    assert "host copies" not in head
    traced = [row._replace(transfers=0.5) for row in rows()]
    assert "host copies" in report.steps_table(traced)[1]


def test_the_figure(tmp_path):
    path = tmp_path / "speed.png"
    more = [row._replace(tasks=8) for row in rows()]
    assert report.draw([*rows(), *more, rows()[0]._replace(tasks=40)], "here", path)
    assert path.read_bytes().startswith(b"\x89PNG")


# What is measured


def test_strategies_are_those_that_change_something():
    every = all_strategies()
    assert "auto" not in every
    assert {"unroll", "vmap", "recompute"} <= set(every)
    assert strategies_of(make_method("famo", 2), every) == ("auto",)
    assert strategies_of(make_method("pcgrad", 2), every) == every
    kept = strategies_of(make_method("graddrop", 2), every)
    assert set(kept) == set(every) - {"recompute"}


def test_the_studys_recipe_is_that_of_multi_digits():
    sizes, recipe = MODELS["study"], PROBLEM.recipe
    assert (sizes.encoder, sizes.rows) == (recipe.encoder, recipe.batch_size)
    assert dict(sizes.options) == dict(recipe.encoder_options)
    assert (command.STUDY.tasks, command.STUDY.seeds) == (len(PROBLEM.tasks), (10,))


def test_the_grid():
    options = Options(models=("mlp", "lenet"), tasks=(2, 8), seeds=(1, 8), aggregation=(100,))
    plan = command.plan(options)
    found = [(item.model, item.tasks) for item in plan if isinstance(item, cells.Cell)]
    assert found == [("mlp", 2), ("mlp", 8), ("lenet", 2), ("lenet", 8)]
    assert [item.strategies for item in plan[:4]] == [all_strategies()] * 4
    assert [item.model for item in plan[4:7]] == ["mlp", "lenet", "study"]
    assert plan[7].tasks == 8
    assert len(plan) == 8


def test_the_gpus_preset_can_be_measured():
    plan = command.plan(Options(preset="gpu"))
    assert len(set(map(str, plan))) >= len(plan) - 2  # two cells come again with all strategies
    for item in plan:
        if isinstance(item, cells.Cell):
            check = Options(models=(item.model,), tasks=(item.tasks,), methods=item.methods)
            command.check(check)
        elif isinstance(item, command.Seeds):
            assert item.model in MODELS
        else:
            assert item.parameters == 10**8


def test_aggregation_alone():
    found = aggregation.measure(3, 2500, ("equal", "pcgrad", "graddrop"), RATES, 1, 1e-4)
    assert [row.method for row in found] == ["pcgrad", "graddrop"]
    assert [row.parameters for row in found] == [2500, 2500]
    stack = 4 * 3 * 2500
    assert [row.reading for row in found] == pytest.approx([2e3 * stack / 100, 1e3 * stack / 100])
    for row in found:
        assert row.of_reading == pytest.approx(row.milliseconds / row.reading)
        assert row.megabytes >= 4 * 2500 / 1e6


# The command, in both its forms


LIGHT = """
import flax.linen  # imports rich for itself
import importlib.abc, runpy, sys

BLOCKED = ("tensorflow_datasets", "grain", "tyro", "rich", "matplotlib", "scipy", "sklearn",
           "orbax", "PIL", "torch")
for name in [name for name in sys.modules if name.split(".")[0] in BLOCKED]:
    del sys.modules[name]

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
runpy.run_module("experiments.speed", run_name="__main__", alter_sys=True)
"""


def test_it_runs_with_jax_flax_optax_and_numpy_alone(tmp_path):
    flags = "--models mlp --tasks 2 --methods pcgrad --strategies unroll --repeats 1"
    more = "--seconds 1e-4 --batch 8 --aggregation 100 --out"
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *flags.split(), *more.split(), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "no figure: matplotlib is not installed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
    saved = json.loads((tmp_path / "speed.json").read_text())
    equal, ours = saved["steps"]
    assert (equal["method"], ours["method"], ours["strategy"]) == ("equal", "pcgrad", "unroll")
    assert ours["floor"] == pytest.approx(sum(ours["parts"].values()))
    assert ours["of_equal"] == pytest.approx(ours["milliseconds"] / equal["milliseconds"])
    assert ours["megabytes"] > 0
    assert (saved["aggregation"][0]["method"], saved["left_out"]) == ("pcgrad", [])
    assert {"training steps", "aggregation alone"} <= set(done.stdout.splitlines())


def test_the_time_is_up(tmp_path, capsys):
    said = []
    options = Options(minutes=1e-9, out=tmp_path, preset="gpu")
    found = command.run(options, said.append)
    assert found["left_out"] == [str(item) for item in command.GPU]
    written = (tmp_path / "speed.json").read_text()
    assert json.loads(written)["left_out"] == found["left_out"]
    assert str(tmp_path) not in written
    assert "left out, the time being over: lenet, K = 2, batch 256" in capsys.readouterr().out


def test_both_command_lines_are_read_alike():
    flags = "--models mlp --tasks 2 40 --seeds 1 8 --peers --preset gpu --dtype bfloat16"
    more = "--minutes 3.5 --out here --strategies auto vmap --aggregation 1000 --seconds 0.5"
    given = [*flags.split(), *more.split(), "--batch", "7"]
    expected = Options(
        models=("mlp",),
        tasks=(2, 40),
        seeds=(1, 8),
        peers=True,
        preset="gpu",
        dtype="bfloat16",
        batch=7,
        minutes=3.5,
        out=Path("here"),
        strategies=("auto", "vmap"),
        aggregation=(1000,),
        seconds=0.5,
    )
    assert light_parse(given) == expected
    assert parse(["speed", *given]) == expected
    assert light_parse([]) == parse(["speed"]) == Options()
    assert Speed is Options


def test_every_option_has_its_line_of_help(capsys):
    names = [field.name for field in dataclasses.fields(Options)]
    assert list(helps()) == names
    with pytest.raises(SystemExit) as stop:
        light_parse(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"--{name}" in text for name in names)
    assert all(line.split()[0] in text for line in helps().values())


REFUSED = [
    (["--models", "lenett"], "unknown model 'lenett': did you mean 'lenet'?"),
    (["--methods", "pcgradd"], "unknown method 'pcgradd': did you mean 'pcgrad'?"),
    (["--strategies", "vmapp"], "unknown strategy 'vmapp': did you mean 'vmap'?"),
    (["--methods", "static"], "--methods static: static needs the option 'weights'"),
    (["--methods", "modo"], "--methods modo: it takes 3 batches a step"),
    (["--tasks", "0"], "--tasks must be at least 1, got 0"),
    (["--seeds", "1", "0"], "--seeds must be at least 1, got 0"),
    (["--aggregation", "-1"], "--aggregation must be at least 1, got -1"),
    (["--repeats", "0"], "--repeats must be at least 1, got 0"),
    (["--batch", "0"], "--batch must be at least 1, got 0"),
    (["--seconds", "0"], "--seconds must be positive, got 0"),
    (["--minutes", "nan"], "--minutes must be positive, got nan"),
    (["--dtype", "float16"], "invalid choice"),
    (["--tasks", "two"], "two"),
    (["--task", "2"], "--task"),
    (["--out", "/proc/speed"], "cannot write to /proc/speed: "),
]


@pytest.mark.parametrize("main", [command.main, lambda given: cli.main(["speed", *given])])
@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda value: str(value[0]))
def test_bad_input_is_refused_in_one_line(main, given, message, capsys):
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert out == ""


def test_peers_without_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert command.main(["--peers"]) == 2
    assert "--peers needs PyTorch, which is not installed" in capsys.readouterr().err


def test_a_program_without_memory_leaves_the_others(monkeypatch):
    def refused(built, method, strategy, steps):
        if strategy == "vmap":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory\nmore")
        return cells.Program(lambda n: None, 1.0, 1.0)

    monkeypatch.setattr(cells, "compile_steps", refused)
    said = []
    cell = CELL._replace(strategies=("unroll", "vmap"))
    found = cells.measure(cell, PASSES, RATES, 1, 1e-6, False, False, said.append)
    assert [row.strategy for row in found] == ["auto", "unroll"]
    (line,) = said
    assert line.endswith("pcgrad vmap: RESOURCE_EXHAUSTED: no memory")
