"""What is read off a program for a GPU; the compiler itself is not there in tests."""

import jax
import pytest

from experiments.errors import UserError
from experiments.speed import ahead

PROGRAM = """\
HloModule jit_f, is_scheduled=true

%region_0 (a: f32[], b: f32[]) -> f32[] {
  %b = f32[] parameter(1)
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_reduce (p: f32[1000,8]) -> f32[8] {
  %p = f32[1000,8]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %r = f32[8]{0} reduce(%p, %zero), dimensions={0}, to_apply=%region_0
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%state), index=1
  %y = f32[8]{0} custom-call(%x), custom_call_target="solve"
  ROOT %t = (s32[], f32[8]{0}) tuple(%x, %y)
}

ENTRY %main (x: f32[1000,8]) -> f32[8] {
  %x.1 = f32[1000,8]{1,0} parameter(0)
  %fusion = f32[8]{0} fusion(%x.1), kind=kInput, calls=%fused_reduce
  %start = (s32[], f32[8]{0}) tuple(%fusion, %fusion)
  %a = (s32[], f32[8]{0}) while(%start), condition=%c, body=%body, known_trip_count={"n":"8"}
  %b = (s32[], f32[8]{0}) while(%a), condition=%c, body=%body
  ROOT %out = f32[8]{0} get-tuple-element(%b), index=1
}
"""


def test_kernels_bytes_and_waits_of_a_program() -> None:
    found = ahead.read(PROGRAM, 3.0)
    assert (found.kernels, found.waits, found.megabytes) == (2, 1, 3.0)
    assert found.gigabytes * 1e9 == (8000 + 8) * 4 + (8 + 8) * 4


def test_without_the_compiler_it_says_what_to_install(monkeypatch, capsys) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(ahead.topologies, "get_topology_desc", missing)
    assert ahead.main() == 2
    said = capsys.readouterr().err
    assert 'pip install "jax[cuda12]"' in said
    assert len(said.splitlines()) == 1


def test_a_gpu_that_is_there_is_not_compiled_for(monkeypatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="JAX_PLATFORMS=cpu"):
        ahead.device()
