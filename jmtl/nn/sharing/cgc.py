"""Customized gate control: shared experts and each task's own."""

from collections.abc import Mapping

import flax.linen as nn

from jmtl.checks import check_count
from jmtl.nn.sharing.parts import Sharing
from jmtl.nn.sharing.ple import extraction


def cgc(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    shared_experts: int = 1,
    task_experts: int = 1,
) -> Sharing:
    """A task's gate mixes its own experts and the shared ones: `y_k = h_k(w_k(x) [S_k, S_s])`.

    Equations 1 to 3: `w_k(x) = softmax(W_k x)`, S the outputs of copies of the encoder. The gate
    reads what `mmoe`'s reads.

    Shared: the shared experts. A task's own: its experts, gate and head. Without shared experts the
    networks are independent (each with `task_experts` experts), and nothing is shared. Any encoder.

    Args:
        encoder: What every expert is a copy of.
        heads: h_k by task.
        shared_experts: At least 0.
        task_experts: Experts of each task, at least 1.

    References:
        Tang et al., *Progressive Layered Extraction (PLE)*, RecSys 2020, section 4.1.
    """
    check_count("cgc", "shared_experts", shared_experts, 0)
    check_count("cgc", "task_experts", task_experts, 1)
    return extraction(encoder, heads, (None,), shared_experts, task_experts)
