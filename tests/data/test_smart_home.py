import hashlib
import itertools
import re

import numpy as np
import pytest

from jmtl.data import smart_home as home
from jmtl.data import source

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def spoken():
    return {split: home.speak(split, 800, seed) for seed, split in enumerate(SPLITS)}


def templates(split):
    return {template for splits in home.TEMPLATES.values() for template in splits[split]}


def test_no_template_and_no_sentence_is_in_two_splits(spoken):
    for one in SPLITS:
        for other in SPLITS:
            if one != other:
                assert not templates(one) & templates(other)
                texts = ({" ".join(s.words) for s in spoken[split]} for split in (one, other))
                assert not set.intersection(*texts)
    for splits in home.TEMPLATES.values():
        assert {split: len(set(chosen)) for split, chosen in splits.items()} == {
            split: len(chosen) for split, chosen in splits.items()
        }


def test_held_out_templates_use_words_of_the_training_ones():
    known = {word for template in templates("train") for word in template.split()}
    for split in ("validation", "test"):
        assert {word for template in templates(split) for word in template.split()} <= known


def test_the_longest_sentence_fits():
    def longest(texts):
        return max(len(text.split()) for text in texts)

    sizes = {slot: longest(texts) for slot, texts in home.FILLERS.items()}
    sizes["ask"] = longest(home._ASK)
    most = max(
        sum(sizes[piece.strip("{}")] if "{" in piece else 1 for piece in template.split())
        for split in SPLITS
        for template in templates(split)
    )
    assert most + longest(home._CALL) + longest(home._THANK) == home.LENGTH


def test_every_sentence_is_its_template_with_its_slots_filled(spoken):
    for split in SPLITS:
        for sentence in spoken[split]:
            slots, text = {}, []
            for word, tag in zip(sentence.words, sentence.tags, strict=True):
                if tag.startswith("B-"):
                    text.append(f"{{{tag[2:]}}}")
                    slots[tag[2:]] = [word]
                elif tag.startswith("I-"):
                    assert text[-1] == f"{{{tag[2:]}}}"  # I goes on with what B began
                    slots[tag[2:]].append(word)
                else:
                    text.append(word)
            for slot, words in slots.items():
                assert " ".join(words) in home.FILLERS[slot]
            every = [t for s in SPLITS for t in home.TEMPLATES[sentence.intent][s]]
            template = every[sentence.template]
            assert template in home.TEMPLATES[sentence.intent][split]
            pattern = re.escape(template.replace("{ask} ", "@")).replace("@", "(.+ )?")
            assert re.search(f"(^| ){pattern}( |$)", " ".join(text))


def test_the_target_is_the_temperature_that_is_asked_for(spoken):
    counts = {True: 0, False: 0}
    for sentence in itertools.chain(*spoken.values()):
        assert (sentence.target is not None) == (sentence.intent == "heat_set")
        named = " ".join(
            w for w, tag in zip(sentence.words, sentence.tags, strict=True) if tag[2:] == "degrees"
        )
        if named:
            counts[sentence.target is not None] += 1
        if sentence.target is not None:
            whole, half = divmod(sentence.target, 1)
            expected = home.in_words(int(whole)) + (" and a half" if half else "")
            assert named.removesuffix(" degrees") == expected
    assert min(counts.values()) > 20  # a number alone does not tell that a temperature is asked for


def test_numbers_in_words():
    words = {0: "zero", 9: "nine", 13: "thirteen", 20: "twenty", 28: "twenty eight", 90: "ninety"}
    assert {number: home.in_words(number) for number in words} == words
    assert home.DEGREES["twenty one and a half degrees"] == 21.5
    assert home.TEMPERATURES == (15.0, 28.5)
    assert len(home.DEGREES) == 4 * 14


def test_examples_hold_the_sentence_and_padding(spoken):
    for sentence in spoken["test"][:50]:
        example = home.encode(sentence)
        n = len(sentence.words)
        assert home.decode(example["tokens"]) == " ".join(sentence.words)
        assert (example["tokens"] > 0).tolist() == [True] * n + [False] * (home.LENGTH - n)
        assert [home.TAGS[tag] for tag in example["tags"][:n]] == list(sentence.tags)
        assert (example["tags"][n:] == -1).all()
        assert example["target"] == (sentence.target or 0)


def test_prepared_sentences_are_those_spoken(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "COUNTS", {"train": 30, "validation": 5, "test": 5})
    builder = source.prepare("smart_home", tmp_path)
    for i, (split, count) in enumerate(home.COUNTS.items()):
        arrays = source.as_arrays(source.load(builder, split))
        expected = [home.encode(s) for s in home.speak(split, count, home._SEED + i)]
        for row, example in enumerate(expected):
            example["intent"] = home.INTENTS.index(example["intent"])
            assert example.keys() == arrays.keys()
            for name, values in example.items():
                np.testing.assert_array_equal(arrays[name][row], values)


def test_version_1_is_these_sentences():
    # A change of the grammar needs a new VERSION, as prepared copies of the old one exist.
    text = repr([home.VOCABULARY, home.TAGS, *(home.speak(s, 99, 5) for s in SPLITS)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "dc9a44df24c6f7fd"
