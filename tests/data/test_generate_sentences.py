"""The optional script that asks a language model for sentences, with a model that the test answers for."""

import json

import pytest
from generate_sentences import PROMPT, attributes, generate

from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.offline.sentences import GRID

SENTENCES = ["A calm female doctor is holding a golden throne.", "An angry male chef is juggling\n a desk."]


def ask(i):
    return SENTENCES[i % 2]


def test_sentences_are_written_and_read_back(tmp_path):
    path = tmp_path / "new" / "sentences.jsonl"
    generate(path, 6, ask)
    dataset = load_data(f"csv:{path}")
    assert dataset["text"][1] == "An angry male chef is juggling a desk."
    assert dataset["id"][:2] == ["00000", "00001"]
    assert dataset.features["profession"].names == ["chef", "doctor"]
    assert labels_of(dataset, "gender").tolist() == [0, 1] * 3


def test_a_killed_run_goes_on(tmp_path):
    path, asked = tmp_path / "sentences.jsonl", []
    generate(path, 2, ask)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])  # killed while it wrote the third line
    generate(path, 4, lambda i: asked.append(i) or ask(i))
    assert asked == [2, 3]
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["00000", "00001", "00002", "00003"]


def test_an_empty_answer_is_refused_and_what_is_written_stays(tmp_path):
    path = tmp_path / "sentences.jsonl"
    with pytest.raises(ValueError, match="an empty answer for 1; run again"):
        generate(path, 3, lambda i: " " if i else SENTENCES[0])
    assert len(path.read_text().splitlines()) == 1


def test_the_prompt_has_all_lists_and_attributes_are_recognised():
    assert all(value in PROMPT for values in GRID.values() for value in values)
    found = attributes("A serious Female pilot, sitting on a frying pan.")
    assert found == {
        "emotion": "serious", "gender": "female", "profession": "pilot", "action": "sitting", "object": "frying pan"
    }  # fmt: skip
    assert attributes("Nobody.") == dict.fromkeys(GRID, "")
