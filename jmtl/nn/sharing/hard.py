"""Hard sharing: one encoder for all tasks."""

from collections.abc import Mapping

import flax.linen as nn

from jmtl.nn.sharing.parts import Sharing


def hard(encoder: nn.Module, heads: Mapping[str, nn.Module]) -> Sharing:
    """One encoder, a head a task: `y_k = h_k(f(x))`.

    Shared: the encoder. A task's own: its head. All tasks read one representation, so gradients may
    be taken there (`at="representation"`). Any encoder.

    Args:
        encoder: f.
        heads: h_k by task.

    References:
        Caruana, *Multitask Learning*, Machine Learning, 1997.
    """
    return Sharing(encoder, heads, common=True)
