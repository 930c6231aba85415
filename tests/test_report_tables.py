"""Tables of the report: digits that say something, numbers to the right, the paper's rows beside ours."""

import pandas as pd
import pytest

from spec_repro.headless.printed import beside_the_paper, for_people, significant


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.00526155", "0.00526"),
        ("2.76839e-05", "2.77e-05"),
        ("-0.5", "-0.500"),
        ("12866301", "12,866,301"),
        ("1234.5", "1,234"),
        ("0", "0"),
        ("0042", "0042"),  # an id
        ("'=1+1", "'=1+1"),
        ("", ""),
        ("nan", "nan"),
    ],
)
def test_a_number_has_three_digits_and_other_text_stays(text, shown):
    assert significant(text) == shown


def test_columns_of_numbers_are_known_and_whole_ones_keep_their_form():
    frame = pd.DataFrame({"Unnamed: 0": ["a"], "seed": ["3"], "ami": ["1"], "id": ["007"], "none": [""]})
    frame.loc[1] = ["b", "12", "0.98765", "008", ""]
    shown = for_people(frame)
    assert shown.heads == ["", "seed", "ami", "id", "none"]
    assert shown.numeric == [False, True, True, False, True]
    assert shown.rows == [["a", "3", "1.00", "007", ""], ["b", "12", "0.988", "008", ""]]


SPEC = {
    "table": "probe",
    "rows": "model",
    "columns": "data",
    "values": ["accuracy", "low", "high"],
    "percent": True,
    "paper": [{"of": ["mini", "big"], "in the paper": "CLIP", "top-1": "73.50"}, {"of": ["t5"], "in the paper": "T5"}],
}


def test_rows_of_the_paper_stand_beside_ours_and_what_one_lacks_is_a_dash():
    frame = pd.DataFrame({"model": ["big", "big", "extra"], "data": ["plain", "words", "plain"]})
    frame = frame.assign(accuracy=["0.9", "0.5", "0.25"], low=["0.8", "0.4", "0.2"], high=["1", "0.6", "0.3"])
    shown = beside_the_paper(SPEC, frame)
    assert shown.heads == ["in the paper", "top-1", "model here", "plain", "words"]
    assert shown.rows == [
        ["CLIP", "73.50", "big", "90.0 (80.0 to 100.0)", "50.0 (40.0 to 60.0)"],
        ["T5", "–", "–", "–", "–"],
        ["–", "–", "extra", "25.0 (20.0 to 30.0)", "–"],
    ]
    assert shown.numeric == [False, True, False, True, True]


def test_one_value_without_columns():
    frame = pd.DataFrame({"setting": ["lr", "steps"], "run": ["0.001", "300.0"]})
    spec = {"table": "t", "rows": "setting", "values": "run", "paper": [{"of": ["lr"], "paper": "1e-05"}]}
    assert beside_the_paper(spec, frame).rows == [["1e-05", "lr", "0.00100"], ["–", "steps", "300"]]
