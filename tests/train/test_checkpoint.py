"""Checkpoints: bit for bit there and back, damage never loaded, failures on one line."""

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jmtl.train import checkpoint as cp
from jmtl.train import folders
from jmtl.train.leaves import flatten


class State(NamedTuple):
    params: dict
    opt_state: tuple
    step: jax.Array
    key: jax.Array
    keys: jax.Array
    nothing: tuple = ()


def state_of(seed: int) -> State:
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "shared": {"kernel": jax.random.normal(keys[0], (20, 15)), "bias/0": jnp.zeros(0)},
        "..": [jnp.float32(-0.0), jnp.array([jnp.nan, jnp.inf, 1e-45])],
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "flag": jnp.array(True),
        "empty": jnp.zeros((0, 3), jnp.int32),
        "bits": jnp.array([2**32 - 1, seed], jnp.uint32),
    }
    opt_state = optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params["shared"])
    rbg = jax.random.split(jax.random.key(seed, impl="rbg"), 2)
    return State(params, opt_state, jnp.int32(seed), keys[1], rbg)


STATE = state_of(7)


def bits(tree):
    """Every leaf as dtype, shape and bytes."""
    plain = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(plain)]


@functools.cache
def saved_steps() -> Path:
    """A folder with checkpoints of steps 100 and 200, written once."""
    folder = Path(tempfile.mkdtemp()) / "checkpoints"
    handle = cp.open_checkpoints(folder)
    for step in (100, 200):
        cp.save(handle, step, state_of(step), {"at": step})
    cp.close(handle)
    return folder


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(saved_steps(), tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def one_line(error) -> str:
    text = str(error.value if hasattr(error, "value") else error)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_round_trip_is_exact(tmp_path):
    handle = cp.open_checkpoints(tmp_path / "c")
    cp.save(handle, 3, STATE, {"run": {"seed": 7}, "rates": [0.1]})
    cp.close(handle)
    got = cp.restore(handle, STATE)
    assert (got.step, got.metadata, got.skipped) == (3, {"run": {"seed": 7}, "rates": [0.1]}, ())
    assert jax.tree.structure(got.state) == jax.tree.structure(STATE)
    assert bits(got.state) == bits(STATE)
    assert jax.random.key_impl(got.state.keys) == "rbg"
    assert cp.digest(got.state) == cp.digest(STATE)
    jax.random.normal(got.state.key, (2,))


def test_float64_and_host_leaves(tmp_path):
    with jax.enable_x64(True):
        state = {"x": jnp.array([1 / 3, -0.0]), "n": jnp.int64(2**40)}
        host = {"np": np.array([1 / 3]), "int": 5, "float": 0.1, "yes": True}
        handle = cp.open_checkpoints(tmp_path)
        cp.save(handle, 0, (state, host))
        got = cp.restore(handle, (state, host)).state
        assert bits(got[0]) == bits(state)
        assert got[0]["x"].dtype == jnp.float64
    assert got[1] == host
    assert all(type(got[1][name]) is type(host[name]) for name in host)
    cp.close(handle)


@pytest.mark.parametrize("state", [(), {"a": None}, {"a": np.zeros((0, 2), np.float32)}])
def test_states_without_bytes(tmp_path, state):
    handle = cp.open_checkpoints(tmp_path)
    cp.save(handle, 1, state)
    cp.close(handle)
    assert jax.tree.structure(cp.restore(handle, state).state) == jax.tree.structure(state)


def test_template_of_shapes_and_placements(tmp_path):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    rows, every = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    state = {
        "w": jax.device_put(jnp.arange(8.0), rows),
        "b": jax.device_put(jnp.ones(3), every),
        "key": jax.device_put(jax.random.key(1), every),
        "free": jnp.arange(2),
    }
    handle = cp.open_checkpoints(tmp_path)
    cp.save(handle, 1, state)
    for template in (state, {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in state.items()}):
        got = cp.restore(handle, template).state
        assert bits(got) == bits(state)
    got = cp.restore(handle, state).state
    assert all(got[name].sharding == state[name].sharding for name in state)
    assert [got[name].committed for name in ("w", "free")] == [True, False]
    cp.close(handle)


def test_container_classes_do_not_matter(tmp_path):
    other = namedtuple("other", ["a", "b"])
    handle = cp.open_checkpoints(tmp_path)
    cp.save(handle, 1, {"b": jnp.ones(2), "a": jnp.zeros(1)})
    got = cp.restore(handle, other(jnp.ones(1), jnp.zeros(2))).state
    np.testing.assert_array_equal(got.b, np.ones(2))
    cp.close(handle)


def test_digest_is_the_documented_one():
    tree = OrderedDict(z=jnp.float32(1.5), a=[jnp.array([1, 2], jnp.int32), jax.random.key(3)])
    total = hashlib.sha256()
    total.update(b'["a/0", "int32", [2]]\n' + np.array([1, 2], "<i4").tobytes())
    total.update(b'["a/1", "key<threefry2x32>", []]\n' + np.array([0, 3], "<u4").tobytes())
    total.update(b'["z", "float32", []]\n' + np.array(1.5, "<f4").tobytes())
    assert cp.digest(tree) == total.hexdigest()


def test_digest_separates():
    trees = [
        {"a": jnp.zeros(2)},
        {"a": -jnp.zeros(2)},
        {"a": jnp.zeros(2, jnp.int32)},
        {"a": jnp.zeros((2, 1))},
        {"b": jnp.zeros(2)},
        {"a": jnp.zeros(1), "b": jnp.zeros(1)},
        {"a": {"b": jnp.zeros(2)}},
        {"a/b": jnp.zeros(2)},
        {"a": jax.random.key(0)},
        {"a": jax.random.key_data(jax.random.key(0))},
        {"a": jax.random.key(0, impl="rbg")},
    ]
    assert len({cp.digest(tree) for tree in trees}) == len(trees)
    assert cp.digest({"a": np.asfortranarray(np.eye(3)[:2])}) == cp.digest({"a": np.eye(3)[:2]})


def test_donated_right_after_save(tmp_path):
    handle = cp.open_checkpoints(tmp_path)
    state = {"w": jnp.arange(200_000.0), "n": jnp.int32(0)}
    step = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    want = bits(jax.tree.map(jnp.copy, state))
    cp.save(handle, 1, state)
    for _ in range(3):
        state = step(state)
    jax.block_until_ready(state)
    cp.wait(handle)
    assert bits(cp.restore(handle, state).state) == want
    cp.close(handle)


def test_copies_are_real():
    host = {"np": np.ones(3), "jax": jnp.ones(3)}
    held = flatten(host)
    host["np"][:] = 0
    np.testing.assert_array_equal(held["np"].data, np.ones(3))
    assert all(leaf.data.flags.owndata for leaf in held.values())


def test_save_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    go = threading.Event()
    real = folders._sums
    monkeypatch.setattr(folders, "_sums", lambda path: (go.wait(20), real(path))[1])
    handle = cp.open_checkpoints(tmp_path)
    cp.save(handle, 1, {"a": jnp.ones(3)})
    assert cp.steps(tmp_path) == []  # and yet save has returned
    go.set()
    cp.wait(handle)
    assert cp.steps(tmp_path) == [1]
    cp.close(handle)


def test_keeps_the_last_and_drops_the_future(tmp_path):
    handle = cp.open_checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 20):
        cp.save(handle, step, {"a": jnp.float32(step)})
    cp.wait(handle)
    assert cp.steps(tmp_path) == [3, 20]
    assert cp.restore(handle, {"a": jnp.zeros(())}, accept=lambda step: step < 20).step == 3
    cp.save(handle, 4, {"a": jnp.float32(4)})
    cp.save(handle, 4, {"a": jnp.float32(5)})
    cp.close(handle)
    assert cp.steps(tmp_path) == [3, 4]
    assert float(cp.restore(handle, {"a": jnp.zeros(())}).state["a"]) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_accept_and_step(folder):
    handle = cp.open_checkpoints(folder)
    got = cp.restore(handle, STATE, accept=lambda step: step % 200 == 100)
    assert (got.step, got.metadata) == (100, {"at": 100})
    assert bits(got.state) == bits(state_of(100))
    assert got.skipped == ("step 200: not a step to continue from",)
    assert cp.restore(handle, STATE, step=100).step == 100
    with pytest.raises(cp.NoCheckpoint, match="step 150"):
        cp.restore(handle, STATE, step=150)


def test_every_file_damaged_in_every_way(folder):
    """Any flipped byte, truncation or loss, in any file: the one before is taken, and said so."""
    handle = cp.open_checkpoints(folder)
    want = bits(state_of(100))
    rng = np.random.default_rng(0)
    files = [path for path in (folder / "200").rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        for damaged in (bytes(flipped), content[: len(content) // 2], content + b"x", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            got = cp.restore(handle, STATE)
            assert (got.step, got.metadata) == (100, {"at": 100}), path
            assert bits(got.state) == want
            assert len(got.skipped) == 1
            assert one_line(got.skipped[0]).startswith("step 200: damaged, ")
        path.write_bytes(content)
    assert cp.restore(handle, STATE).step == 200


def test_leaves_are_verified_apart_from_the_files(folder):
    """Files that agree with their sums, but hold other leaves than the record's."""
    record = folder / "200" / "record" / "metadata"
    content = json.loads(record.read_text())
    content["leaves_sha256"] = content["leaves_sha256"][::-1]
    record.write_text(json.dumps(content))
    (folder / "200" / "SHA256SUMS").write_text(folders._sums(folder / "200"))
    got = cp.restore(cp.open_checkpoints(folder), STATE)
    assert got.step == 100
    assert "SHA-256" in got.skipped[0]


def test_sums_are_those_of_sha256sum(folder):
    lines = (folder / "200" / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        total, name = line.split("  ", 1)
        assert hashlib.sha256((folder / "200" / name).read_bytes()).hexdigest() == total
    assert any(name.endswith("record/metadata") for name in lines)


def test_unfinished_is_passed_over_then_cleared(folder):
    for name in ("300.saving.orbax-checkpoint-tmp", "400.saving", "100.removing"):
        shutil.copytree(folder / "200" / "state", folder / name)
    (folder / "notes").mkdir()
    (folder / "500").write_text("a file")
    handle = cp.open_checkpoints(folder)
    assert cp.steps(folder) == [100, 200]
    got = cp.restore(handle, STATE)
    assert got.step == 200
    assert [line.split(",")[0] for line in got.skipped] == [
        "step 400: unfinished",
        "step 300: unfinished",
    ]
    cp.save(handle, 250, STATE)
    cp.close(handle)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["100", "200", "250", "500", "notes"]


def test_a_damaged_one_is_replaced(folder):
    next((folder / "200" / "state").rglob("manifest*")).unlink()
    handle = cp.open_checkpoints(folder)
    assert cp.restore(handle, STATE).step == 100
    cp.save(handle, 200, state_of(200))
    cp.close(handle)
    assert bits(cp.restore(handle, STATE).state) == bits(state_of(200))


def test_nothing_usable(folder, tmp_path):
    with pytest.raises(cp.NoCheckpoint, match="nowhere") as error:
        cp.restore(cp.open_checkpoints(tmp_path / "nowhere"), STATE)
    assert "start a new run" in one_line(error)
    assert not (tmp_path / "nowhere").exists()
    for step in (100, 200):
        shutil.rmtree(folder / str(step) / "record")
    with pytest.raises(cp.NoCheckpoint, match=r"step 200: damaged.*step 100: damaged") as error:
        cp.restore(cp.open_checkpoints(folder), STATE)
    one_line(error)


def test_leaves_are_read_without_a_template(tmp_path):
    handle = cp.open_checkpoints(tmp_path)
    cp.save(handle, 3, STATE)
    cp.close(handle)
    step, leaves = cp.read(tmp_path)
    expected = flatten(STATE)
    assert (step, leaves.keys()) == (3, expected.keys())
    for path, leaf in leaves.items():
        assert (leaf.dtype, leaf.shape) == (expected[path].data.dtype, expected[path].data.shape)
        assert leaf.tobytes() == expected[path].data.tobytes()
    with pytest.raises(cp.NoCheckpoint, match="nowhere"):
        cp.read(tmp_path / "nowhere")


def test_another_state_is_refused(folder):
    handle = cp.open_checkpoints(folder)
    params = dict(STATE.params, half=jnp.zeros(4, jnp.bfloat16), new=jnp.zeros(2))
    params["bits"] = params["bits"].astype(jnp.int32)
    del params["flag"]
    with pytest.raises(cp.CheckpointError, match="another state") as error:
        cp.restore(handle, STATE._replace(params=params, key=jax.random.key(0, impl="rbg")))
    text = one_line(error)
    assert not isinstance(error.value, cp.NoCheckpoint)
    assert "missing: params/new;" in text
    assert "extra: params/flag;" in text
    assert "params/half (saved bfloat16[3], expected bfloat16[4])" in text
    assert "params/bits (saved uint32[2], expected int32[2])" in text
    assert "key (saved key<threefry2x32>[], expected key<rbg>[])" in text
    with pytest.raises(cp.CheckpointError, match=r"missing: x/0, x/1.* and 5 more; extra"):
        cp.restore(handle, {"x": [jnp.zeros(())] * 10})


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": {1, 2}}])
def test_bad_metadata(tmp_path, bad):
    with pytest.raises(ValueError, match="must be JSON"):
        cp.save(cp.open_checkpoints(tmp_path), 1, (), bad)


def test_bad_numbers(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        cp.open_checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="got -1"):
        cp.save(cp.open_checkpoints(tmp_path), -1, ())


@pytest.mark.parametrize("call", ["save", "wait", "close", "restore"])
def test_folder_vanished(folder, call, capfd):
    handle = cp.open_checkpoints(folder)
    cp.save(handle, 300, STATE)
    cp.wait(handle)
    shutil.rmtree(folder)
    cp.save(handle, 400, STATE)
    arguments = {"save": (500, STATE), "restore": (STATE,)}.get(call, ())
    with pytest.raises(cp.CheckpointError, match=r"step 400 .*checkpoints: No such file") as error:
        getattr(cp, call)(handle, *arguments)
    assert "no earlier one is there" in one_line(error)
    cp.close(handle)  # said once
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "c").write_text("")
    handle = cp.open_checkpoints(tmp_path / "c")
    cp.save(handle, 1, STATE)
    with pytest.raises(cp.CheckpointError, match="File exists") as error:
        cp.close(handle)
    one_line(error)


def child(code: str, *arguments: str, **options) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


FULL = """
import os, resource, sys
import numpy as np
from jmtl.train import checkpoint as cp
state = [np.random.default_rng(i).normal(size=50_000) for i in range(4)]
handle = cp.open_checkpoints(sys.argv[1])
cp.save(handle, 1, state)
cp.wait(handle)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limits[1]))
cp.save(handle, 2, state)
try:
    cp.save(handle, 3, state)
except cp.CheckpointError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
print(os.listdir(sys.argv[1]), cp.restore(handle, state).step)
cp.save(handle, 2, state)
cp.close(handle)
print(cp.steps(sys.argv[1]))
"""


def test_no_room(tmp_path):
    """A write that the system cuts short, as a full disk does, and for root too."""
    process = child(FULL, str(tmp_path / "c"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [
        f"the checkpoint of step 2 could not be written to {tmp_path / 'c'}: File too large; "
        "the last good one is step 1",
        "['1'] 1",
        "[1, 2]",
    ]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]


READ_ONLY = """
import os, sys, tempfile
import numpy as np
from jmtl.train import checkpoint as cp
with tempfile.TemporaryDirectory() as folder:
    handle = cp.open_checkpoints(folder)
    cp.save(handle, 1, [np.ones(3)])
    cp.wait(handle)
    os.chmod(folder, 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write anywhere
    cp.save(handle, 2, [np.ones(3)])
    try:
        cp.close(handle)
    except cp.CheckpointError as error:
        print(str(error).replace(folder, "FOLDER"))
    print(cp.restore(handle, [np.ones(3)]).step)
    os.seteuid(os.getuid())
    os.chmod(folder, 0o755)
"""


def test_read_only():
    process = child(READ_ONLY)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [
        "the checkpoint of step 2 could not be written to FOLDER: Permission denied; "
        "the last good one is step 1",
        "1",
    ]


KILLED = """
import sys
import numpy as np
from jmtl.train import checkpoint as cp
handle = cp.open_checkpoints(sys.argv[1])
cp.save(handle, 1, [np.full(3, 1.0)])
cp.wait(handle)
print("ready", flush=True)
cp.save(handle, 2, [np.random.default_rng(0).normal(size=4_000_000)])
cp.wait(handle)
"""


def test_killed_while_saving(tmp_path):
    process = child(KILLED, str(tmp_path))
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("2*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    handle = cp.open_checkpoints(tmp_path)
    assert cp.steps(tmp_path) == [1]
    assert list(tmp_path.glob("2.saving*"))
    got = cp.restore(handle, [np.zeros(3)])
    assert got.step == 1
    np.testing.assert_array_equal(got.state[0], np.full(3, 1.0))
    assert "step 2: unfinished" in one_line(got.skipped[0])
