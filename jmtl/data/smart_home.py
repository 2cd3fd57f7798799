"""SmartHome: spoken commands for lights, heating and locks, made by a grammar.

A sentence is a template whose slots are filled, said to the house or asked politely. The templates
of training, validation and test are different ones, all over the same words: what is measured is
how sentences are understood whose wording was never seen. Sentences come as token ids, with their
intent, the slot that each token belongs to (B begins one, I goes on, O is none), and the
temperature that is asked for, which most sentences lack.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

COUNTS = {"train": 6_000, "validation": 1_000, "test": 1_000}
"""Sentences of each split."""

LENGTH = 26
"""Tokens of an example, padding with it."""

_SEED = 2026
_SPLITS = tuple(COUNTS)

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "light_on": {
        "train": (
            "{ask} turn on the {lamp}",
            "{ask} turn the {lamp} on in the {room}",
            "{ask} switch on the {lamp} in the {room}",
            "{ask} have the {lamp} on {time}",
            "{ask} light up the {room}",
            "it is too dark in the {room}",
            "i need some light in the {room}",
        ),
        "validation": ("{ask} switch the {room} {lamp} on", "the {room} is too dark"),
        "test": ("{ask} turn on the {room} {lamp} {time}", "i need the {lamp} on in the {room}"),
    },
    "light_off": {
        "train": (
            "{ask} turn off the {lamp}",
            "{ask} turn the {lamp} off in the {room}",
            "{ask} switch off the {lamp} in the {room}",
            "{ask} have the {lamp} off {time}",
            "nobody is in the {room} turn the {lamp} off",
            "it is too bright in the {room}",
            "i do not need the {lamp} in the {room}",
        ),
        "validation": ("{ask} switch the {room} {lamp} off", "the {room} is too bright"),
        "test": ("{ask} turn off the {room} {lamp} {time}", "i do not need light in the {room}"),
    },
    "light_level": {
        "train": (
            "{ask} dim the {lamp} to {level}",
            "{ask} set the {lamp} to {level}",
            "{ask} set the {lamp} in the {room} to {level}",
            "{ask} bring the {room} {lamp} to {level}",
            "{ask} put the {lamp} at {level} {time}",
            "i want the {lamp} at {level}",
            "{lamp} at {level} in the {room}",
        ),
        "validation": (
            "{ask} dim the {room} {lamp} to {level} {time}",
            "i want {level} light in the {room}",
        ),
        "test": (
            "{ask} set the {room} {lamp} to {level}",
            "{ask} bring the {lamp} in the {room} to {level}",
        ),
    },
    "light_colour": {
        "train": (
            "{ask} make the {lamp} {colour}",
            "{ask} turn the {lamp} {colour}",
            "{ask} set the {lamp} in the {room} to {colour}",
            "{ask} change the {room} {lamp} to {colour}",
            "{ask} make the {lamp} in the {room} {colour} {time}",
            "i want {colour} light in the {room}",
            "{colour} {lamp} in the {room}",
        ),
        "validation": ("{ask} change the {lamp} to {colour}", "i want the {room} {lamp} {colour}"),
        "test": ("{ask} turn the {room} {lamp} {colour} {time}", "i need {colour} {lamp}"),
    },
    "heat_set": {
        "train": (
            "{ask} set the temperature to {degrees}",
            "{ask} set the {room} to {degrees}",
            "{ask} heat the {room} to {degrees}",
            "{ask} make it {degrees} in the {room}",
            "{ask} set the heating in the {room} to {degrees} {time}",
            "{ask} change the temperature in the {room} to {degrees}",
            "{ask} cool the {room} to {degrees} {time}",
            "i want {degrees} in the {room}",
        ),
        "validation": (
            "{ask} bring the {room} to {degrees} {time}",
            "{ask} set the {room} temperature to {degrees}",
        ),
        "test": ("i want the {room} at {degrees}", "{ask} put the heating at {degrees} {time}"),
    },
    "heat_up": {
        "train": (
            "{ask} make it {change} warmer in the {room}",
            "{ask} turn up the heating in the {room}",
            "{ask} raise the temperature by {change}",
            "{ask} turn the heating up by {change}",
            "{ask} warm up the {room} {time}",
            "it is too cold in the {room}",
            "i am cold",
        ),
        "validation": (
            "{ask} raise the temperature in the {room} by {change} {time}",
            "the {room} is too cold",
        ),
        "test": ("{ask} turn up the heating by {change}", "i am cold in the {room}"),
    },
    "heat_down": {
        "train": (
            "{ask} make it {change} cooler in the {room}",
            "{ask} turn down the heating in the {room}",
            "{ask} lower the temperature by {change}",
            "{ask} turn the heating down by {change}",
            "{ask} cool down the {room} {time}",
            "it is too hot in the {room}",
            "i am hot",
        ),
        "validation": (
            "{ask} lower the temperature in the {room} by {change} {time}",
            "the {room} is too hot",
        ),
        "test": ("{ask} turn down the heating by {change}", "i am hot in the {room}"),
    },
    "heat_ask": {
        "train": (
            "how warm is it in the {room}",
            "how cold is the {room}",
            "what is the temperature in the {room}",
            "what is the heating set to in the {room}",
            "tell me the temperature in the {room}",
            "is it cold in the {room}",
            "is it {degrees} in the {room}",
        ),
        "validation": ("how warm is the {room}", "what is the {room} temperature"),
        "test": ("tell me how warm it is in the {room}", "is the {room} at {degrees}"),
    },
    "lock": {
        "train": (
            "{ask} lock the {door}",
            "{ask} lock the {door} {time}",
            "{ask} close the lock of the {door}",
            "{ask} make sure the {door} is locked",
            "{ask} have the {door} locked {time}",
            "i want the lock of the {door} closed",
            "i am leaving lock the {door}",
        ),
        "validation": (
            "{ask} make sure the lock of the {door} is closed {time}",
            "i want the {door} locked",
        ),
        "test": ("{ask} close the {door} lock", "i am leaving {ask} close the {door}"),
    },
    "unlock": {
        "train": (
            "{ask} unlock the {door}",
            "{ask} unlock the {door} {time}",
            "{ask} open the lock of the {door}",
            "{ask} make sure the {door} is open",
            "{ask} have the {door} unlocked {time}",
            "i want the lock of the {door} open",
            "somebody is at the {door} let them in",
        ),
        "validation": (
            "{ask} make sure the {door} is unlocked {time}",
            "i want the {door} unlocked",
        ),
        "test": ("{ask} open the {door} lock", "let them in at the {door}"),
    },
    "lock_ask": {
        "train": (
            "is the {door} locked",
            "is the {door} open",
            "is the {door} unlocked {time}",
            "did i lock the {door}",
            "did somebody unlock the {door}",
            "tell me if the {door} is locked",
            "what is the lock of the {door} set to",
        ),
        "validation": ("is the lock of the {door} open", "tell me if i locked the {door}"),
        "test": ("is the lock of the {door} closed", "did somebody lock the {door}"),
    },
}
"""By intent and split. A slot is the name in braces; `ask` is a way to ask, and no slot."""

_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 70: "seventy"}
_TENS |= {80: "eighty", 90: "ninety"}


def in_words(number: int) -> str:
    """A whole number in 0 .. 99 as it is spoken."""
    if number < 20:
        return _NUMBERS[number]
    return " ".join([_TENS[number // 10 * 10], *([_NUMBERS[number % 10]] if number % 10 else [])])


DEGREES = {
    f"{in_words(whole)}{half}{unit}": whole + (0.5 if half else 0.0)
    for whole in range(15, 29)
    for half in ("", " and a half")
    for unit in ("", " degrees")
}
"""Temperatures as they are spoken, and in °C: 15 to 28.5 in halves."""

TEMPERATURES = (min(DEGREES.values()), max(DEGREES.values()))
"""The lowest and the highest of them."""

FILLERS: dict[str, tuple[str, ...]] = {
    "room": (
        "kitchen",
        "bedroom",
        "living room",
        "dining room",
        "guest room",
        "hallway",
        "bathroom",
        "home office",
        "attic",
        "nursery",
    ),
    "lamp": (
        "light",
        "lights",
        "lamp",
        "ceiling light",
        "floor lamp",
        "desk lamp",
        "reading light",
        "spotlights",
    ),
    "door": (
        "front door",
        "back door",
        "garage",
        "garage door",
        "garden gate",
        "cellar door",
        "side entrance",
    ),
    "level": (*(f"{in_words(tens)} percent" for tens in range(10, 100, 10)), "full brightness"),
    "colour": ("red", "green", "blue", "purple", "warm white", "cold white", "soft yellow"),
    "degrees": tuple(DEGREES),
    "change": ("one degree", "two degrees", "three degrees", "a little", "a bit"),
    "time": (
        "at seven",
        "at half past six",
        "in ten minutes",
        "in an hour",
        "tonight",
        "tomorrow morning",
        "at nine in the evening",
    ),
}
"""What fills each slot, in every split."""

_ASK = ("", "", "please", "could you", "could you please", "can you", "i want you to")
_CALL = ("", "", "hey home", "okay home")
_THANK = ("", "", "", "please", "thanks")

INTENTS = tuple(TEMPLATES)
"""The classes of intent."""

TAGS = ("O", *(f"{mark}-{slot}" for slot in FILLERS for mark in "BI"))
"""The classes of a token."""

VOCABULARY = (
    "",
    *sorted(
        {
            word
            for text in itertools.chain(
                *(splits[split] for splits in TEMPLATES.values() for split in _SPLITS),
                *FILLERS.values(),
                _ASK,
                _CALL,
                _THANK,
            )
            for word in re.sub(r"{\w+}", "", text).split()
        }
    ),
)
"""The word of each token id; 0 is padding."""

_IDS = {word: i for i, word in enumerate(VOCABULARY)}


class Sentence(NamedTuple):
    """One command.

    Attributes:
        words: as spoken.
        tags: one of `TAGS` for each word.
        intent: one of `INTENTS`.
        template: its position among those of the intent, training first, then validation, then
            test.
        target: the temperature asked for in °C, None where there is none.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    intent: str
    template: int
    target: float | None


class SmartHome(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of SmartHome; needs no download.

    An example has `tokens` `[LENGTH]` int32, positions in `VOCABULARY`, 0 after the sentence;
    `tags` `[LENGTH]` int32, positions in `TAGS`, -1 after the sentence; `intent` `[]` int64, a
    position in `INTENTS`; `target` `[]` float32 in °C, and `has_target` `[]` bool, without which
    the target is 0; `template` `[]` int64, see `Sentence`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "6,000, 1,000 and 1,000 sentences of 11 intents."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        def array(*shape: int, dtype: Any) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=dtype)

        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "tokens": array(LENGTH, dtype=np.int32),
                    "tags": array(LENGTH, dtype=np.int32),
                    "intent": tfds.features.ClassLabel(names=INTENTS),
                    "target": array(dtype=np.float32),
                    "has_target": array(dtype=np.bool_),
                    "template": array(dtype=np.int64),
                }
            ),
            disable_shuffling=True,  # sentences are drawn independently
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples(speak(split, count, _SEED + i))
            for i, (split, count) in enumerate(COUNTS.items())
        }

    def _generate_examples(
        self, sentences: Sequence[Sentence]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, sentence in enumerate(sentences):
            yield key, encode(sentence)


def speak(split: str, count: int, seed: int) -> list[Sentence]:
    """Draw sentences: an intent, a template of it and the split, and what fills its slots.

    Args:
        split: "train", "validation" or "test".
        count: sentences.
        seed: the same seed gives the same sentences.
    """
    random = np.random.default_rng(seed)
    before = _SPLITS[: _SPLITS.index(split)]
    sentences = []
    for _ in range(count):
        intent = _one(random, INTENTS)
        choice = int(random.integers(len(TEMPLATES[intent][split])))
        first = sum(len(TEMPLATES[intent][earlier]) for earlier in before)
        template = f"{_one(random, _CALL)} {TEMPLATES[intent][split][choice]}"
        ending = _one(random, _THANK)
        if "please" not in template:
            template = f"{template} {ending}"
        words, tags, target = _fill(random, template)
        wanted = target if intent == "heat_set" else None
        sentences.append(Sentence(words, tags, intent, first + choice, wanted))
    return sentences


def encode(sentence: Sentence) -> dict[str, Any]:
    """A sentence as an example of `SmartHome`."""
    tokens, tags = np.zeros(LENGTH, np.int32), np.full(LENGTH, -1, np.int32)
    tokens[: len(sentence.words)] = [_IDS[word] for word in sentence.words]
    tags[: len(sentence.tags)] = [TAGS.index(tag) for tag in sentence.tags]
    return {
        "tokens": tokens,
        "tags": tags,
        "intent": sentence.intent,
        "target": np.float32(sentence.target or 0),
        "has_target": np.bool_(sentence.target is not None),
        "template": np.int64(sentence.template),
    }


def decode(tokens: Sequence[int] | np.ndarray) -> str:
    """The words of token ids, without padding."""
    return " ".join(VOCABULARY[token] for token in tokens if token)


def _one(random: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]


def _fill(
    random: np.random.Generator, template: str
) -> tuple[tuple[str, ...], tuple[str, ...], float | None]:
    """Words, tags, and the temperature named, of a template with its slots filled."""
    words: list[str] = []
    tags: list[str] = []
    degrees = None
    for piece in template.split():
        slot = piece.strip("{}") if piece.startswith("{") else None
        text = piece
        if slot is not None:
            text = _one(random, _ASK if slot == "ask" else FILLERS[slot])
        for i, word in enumerate(text.split()):
            words.append(word)
            tags.append(f"{'I' if i else 'B'}-{slot}" if slot in FILLERS else "O")
        if slot == "degrees":
            degrees = DEGREES[text]
    return tuple(words), tuple(tags), degrees
