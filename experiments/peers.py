"""The same training steps in PyTorch, as its users write them: for `experiments.speed --peers`.

PyTorch is no dependency: nothing here is imported unless it is asked for. The same architecture,
parameters, batch, optimiser and number of threads; run eagerly, with the settings that PyTorch's
own guide to speed recommends on a GPU (TF32 as XLA uses it, cuDNN's search, channels last for
convolutions, autocast for bfloat16).

Three ways to a step:

- "torch": one backward pass of the sum of the losses. The joint step.
- "torch loop": K backward passes over a retained graph, each flattened into a row, the method in
  Python over the rows, the result written back: what LibMTL and most published code runs.
- "torchjd": TorchJD's engine, which takes the Gramian layer by layer and then one weighted backward
  pass (`torchjd.autogram`), and "torchjd jac", which stores the Jacobian (`torchjd.autojac`), each
  with TorchJD's own form of the method. The heads are weighted too in the first, as its guide does.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.peer_models import Net, named
from experiments.speed.models import LEARNING_RATE, Dtype, Sizes

try:
    import torchjd.aggregation
    import torchjd.autogram
    import torchjd.autojac
except ImportError:
    torchjd = None  # type: ignore[assignment]


# The methods in Python over flattened gradients [K, P].


def pcgrad(grads: Tensor) -> Tensor:
    """Each row projected on the normal planes of those it conflicts with, in a random order."""
    projected = grads.clone()
    order = list(range(len(grads)))
    for i in range(len(grads)):
        random.shuffle(order)
        for j in order:
            if i == j:
                continue
            dot = torch.dot(projected[i], grads[j])
            if dot < 0:
                projected[i] -= dot / (grads[j].norm() ** 2 + 1e-12) * grads[j]
    return projected.sum(0)


def graddrop(grads: Tensor) -> Tensor:
    """Of every element the positive or the negative parts, drawn by their share."""
    purity = 0.5 * (1 + grads.sum(0) / (grads.abs().sum(0) + 1e-12))
    positive = purity > torch.rand_like(purity)
    return (grads * torch.where(positive, grads > 0, grads < 0)).sum(0)


LOOPS: Mapping[str, Callable[[Tensor], Tensor]] = {"pcgrad": pcgrad, "graddrop": graddrop}

JD = {"pcgrad": "PCGrad", "upgrad": "UPGrad", "cagrad": "CAGrad"}
_JD_OPTIONS = {"cagrad": {"c": 0.5}}


# Steps


class Peer(NamedTuple):
    """A PyTorch step.

    Attributes:
        source: "torch", "torch loop", "torchjd" or "torchjd jac".
        method: a name as in `jmtl.METHODS`.
        run: does n steps and waits for them.
        net: what it trains.
    """

    source: str
    method: str
    run: Callable[[int], None]
    net: nn.Module


class Setting(NamedTuple):
    """What the peers of a cell share.

    Attributes:
        sizes: of the model.
        k: K.
        params: jmtl's, to begin from.
        inputs: of the batch, as jmtl's model reads it.
        labels: `[B, K]`.
        dtype: what the model computes in.
        learning_rate: Adam's.
    """

    sizes: Sizes
    k: int
    params: Any
    inputs: np.ndarray
    labels: np.ndarray
    dtype: Dtype = "float32"
    learning_rate: float = LEARNING_RATE


def prepare(threads: int) -> str:
    """Set PyTorch up as fairly as it can be; returns what it runs on, in words."""
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        where = torch.cuda.get_device_name()
    else:
        torch.set_num_threads(threads)
        where = f"{torch.get_num_threads()} threads"
    engine = f"torchjd {_version('torchjd')}" if torchjd else "torchjd is not installed"
    return f"torch {torch.__version__} on {where}, {engine}"


def _version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def peers(setting: Setting, methods: Sequence[str]) -> tuple[list[Peer], list[str]]:
    """The PyTorch steps of those methods that PyTorch code is at hand for, and notes on others."""
    found, notes = [], []
    if "equal" in methods:
        found.append(_peer(setting, "torch", "equal", _joint))
    for name in methods:
        if name in LOOPS:
            found.append(_peer(setting, "torch loop", name, _loop(LOOPS[name])))
        if name in JD and torchjd:
            try:
                weighting = getattr(torchjd.aggregation, JD[name] + "Weighting")
                aggregator = getattr(torchjd.aggregation, JD[name])
                options = _JD_OPTIONS.get(name, {})
                found.append(_peer(setting, "torchjd", name, _engine(weighting(**options))))
                found.append(_peer(setting, "torchjd jac", name, _jac(aggregator(**options))))
            except ImportError as error:
                notes.append(f"torchjd has no {name} here: {' '.join(str(error).split())}")
    return found, notes


class Parts(NamedTuple):
    """What a way of stepping works with.

    Attributes:
        net: the model.
        shared: the encoder's parameters.
        losses: runs the model: (representation, K losses).
    """

    net: Net
    shared: Sequence[nn.Parameter]
    losses: Callable[[], tuple[Tensor, list[Tensor]]]


Backward = Callable[[Parts], Callable[[], None]]
"""Made once for a model: a function that leaves the step's gradients in `.grad`."""


def _peer(setting: Setting, source: str, method: str, backward: Backward) -> Peer:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = jax.tree.leaves(setting.params["tasks"])[-1].shape[0]
    net = Net(setting.sizes, setting.k, width)
    values = {
        name: torch.tensor(value) for name, value in named(setting.params, setting.sizes).items()
    }
    net.load_state_dict({**net.state_dict(), **values})
    if set(values) != dict(net.named_parameters()).keys():
        raise ValueError(f"{setting.sizes.encoder}: its parameters here differ from jmtl's")
    net.to(device)
    x = torch.tensor(np.asarray(setting.inputs), device=device)
    if setting.sizes.encoder in ("lenet", "resnet"):
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
        if device.type == "cuda":
            net, x = (thing.to(memory_format=torch.channels_last) for thing in (net, x))
    labels = torch.tensor(np.asarray(setting.labels), device=device).long().unbind(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=setting.learning_rate)
    half = setting.dtype == "bfloat16"

    def losses() -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            z = net.encoder(x)
            outputs = [head(z) for head in net.heads]
        pairs = zip(outputs, labels, strict=True)
        return z, [F.cross_entropy(output.float(), label) for output, label in pairs]

    step = backward(Parts(net, list(net.encoder.parameters()), losses))

    def run(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            step()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return Peer(source, method, run, net)


def _joint(parts: Parts) -> Callable[[], None]:
    def step() -> None:
        _, losses = parts.losses()
        torch.stack(losses).sum().backward()

    return step


def _loop(method: Callable[[Tensor], Tensor]) -> Backward:
    def made(parts: Parts) -> Callable[[], None]:
        def step() -> None:
            _, losses = parts.losses()
            rows = []
            for i, loss in enumerate(losses):
                loss.backward(retain_graph=i < len(losses) - 1)
                rows.append(torch.cat([p.grad.flatten() for p in parts.shared]))  # type: ignore[union-attr]
                for p in parts.shared:
                    p.grad = None
            update, begin = method(torch.stack(rows)), 0
            for p in parts.shared:
                p.grad = update[begin : begin + p.numel()].view_as(p)
                begin += p.numel()

        return step

    return made


def _engine(weighting: Callable[[Tensor], Tensor]) -> Backward:
    def made(parts: Parts) -> Callable[[], None]:
        engine = torchjd.autogram.Engine(parts.net.encoder, batch_dim=None)

        def step() -> None:
            _, losses = parts.losses()
            stacked = torch.stack(losses)
            stacked.backward(weighting(engine.compute_gramian(stacked)))

        return step

    return made


def _jac(aggregator: Callable[[Tensor], Tensor]) -> Backward:
    def made(parts: Parts) -> Callable[[], None]:
        def step() -> None:
            z, losses = parts.losses()
            torchjd.autojac.mtl_backward(losses, features=z)
            torchjd.autojac.jac_to_grad(parts.shared, aggregator)

        return step

    return made


def megabytes(peer: Peer) -> float:
    """The most that a step holds beside parameters and optimiser, on a GPU; NaN elsewhere."""
    if not torch.cuda.is_available():
        return float("nan")
    torch.cuda.synchronize()
    for parameter in peer.net.parameters():
        parameter.grad = None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    peer.run(1)
    return (torch.cuda.max_memory_allocated() - before) / 1e6
