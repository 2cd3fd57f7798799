"""What a problem is: a data set, its tasks, a model and a recipe."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from jmtl.data.augment import Augment
from jmtl.tasks import Batch, Task


class Recipe(NamedTuple):
    """What a run does unless it is told otherwise.

    Attributes:
        encoder: a name in `jmtl.nn.ENCODERS`.
        encoder_options: its options, as dropout and kernel_init.
        data_options: options that any encoder of this data is given, as vocabulary.
        head_options: those of every head, as hidden.
        steps: updates.
        batch_size: rows of a global batch, over all devices.
        optimizer: "adam", "adam_l2" or "sgd".
        learning_rate: of the optimiser.
        weight_decay: on all parameters of the model; see `experiments.parts.build_optimizer`.
        steps_per_dispatch: steps that one call of the compiled program does.
        checkpoint_every: steps between checkpoints, a multiple of `steps_per_dispatch`.
        measure_every: steps between measurements of conflict, for methods that do not see it.
        augment: a name in the problem's `augmentations`; "none" leaves batches as they are.
        sharing: a name in `jmtl.nn.SHARINGS`.
        sharing_options: its options.
        schedule: (step, factor): from that step on the learning rate is multiplied by the factor.
    """

    encoder: str
    encoder_options: Mapping[str, Any] = MappingProxyType({})
    head_options: Mapping[str, Any] = MappingProxyType({})
    steps: int = 2_000
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    steps_per_dispatch: int = 100
    checkpoint_every: int = 500
    measure_every: int = 10
    data_options: Mapping[str, Any] = MappingProxyType({})
    augment: str = "none"
    sharing: str = "hard"
    sharing_options: Mapping[str, Any] = MappingProxyType({})
    schedule: Sequence[tuple[int, float]] = ()


class Base(NamedTuple):
    """Published numbers of networks that were trained for one task each, for Δm.

    Attributes:
        scores: by task and metric, on the test split.
        source: where they are printed.
    """

    scores: Mapping[str, Mapping[str, float]]
    source: str


class Problem(NamedTuple):
    """A data set, its tasks, a model and a recipe: one file in `experiments/problems/`.

    Attributes:
        name: on the command line.
        summary: one line.
        tasks: K tasks.
        data: a name in `jmtl.data.source.BUILDERS`, or one of TFDS; or several by names of their
            own, which tasks call their `source`.
        to_batch: a raw batch by feature `[B, ...]` to what the model reads; runs on the device. Of
            several data sets, raw batches and inputs are by name.
        recipe: the defaults of a run unless another is named.
        offline: whether its data needs no download.
        knobs: numbers by which the problem can be changed, and what they are at rest.
        turn: the problem at these knobs, all of them, and a seed; both may be traced.
        augmentations: what training may make of a batch, by name; evaluation sees it as it is.
        splits: where the data has other splits than "train", "validation" and "test": by these, a
            slice of one that it has, as "train[:90%]". Of several data sets, these by name.
        recipes: all recipes by name, `recipe` the first; none where there is one alone.
        stem_width: of several data sets, what each task's stem answers; None where the encoder
            reads the inputs of all, which are alike.
        source: where the data comes from, and the bytes to download, in a few words; "": `data`.
        by_hand: whether its files must be put there by hand.
        validation: whether it has a validation split, by which a study chooses.
        mean_of_last_epochs: over the ends of how many epochs a run takes the mean of its test
            scores too, as `experiments.last_epochs` has it; None for the last step's alone.
        protocol: what scores of the test split are of, in one line; "" where nothing is to be said.
        base: what the scores of the test split are compared with, if there is anything.
        evaluation_rows: the most examples that are evaluated together.
    """

    name: str
    summary: str
    tasks: tuple[Task, ...]
    data: str | Mapping[str, str]
    to_batch: Callable[[Mapping[str, Any]], Batch]
    recipe: Recipe
    offline: bool
    knobs: Mapping[str, float] = MappingProxyType({})
    turn: Callable[[Any, Mapping[str, Any], Any], Any] | None = None
    augmentations: Mapping[str, Augment] = MappingProxyType({})
    splits: Mapping[str, Any] = MappingProxyType({})
    recipes: Mapping[str, Recipe] = MappingProxyType({})
    stem_width: int | None = 32
    source: str = ""
    by_hand: bool = False
    validation: bool = True
    mean_of_last_epochs: int | None = None
    protocol: str = ""
    base: Base | None = None
    evaluation_rows: int = 1_000

    def turned(self, knobs: Mapping[str, Any], seed: Any) -> "Problem":
        """The problem at some knobs, the others at rest.

        Args:
            knobs: by name; may be traced.
            seed: of what the knobs draw; may be traced.
        """
        if self.turn is None or not knobs:
            return self
        found: Problem = self.turn(self, {**self.knobs, **knobs}, seed)
        return found
