"""Tables row by row: what is read, and what is refused with its row; nothing is shifted, clipped, converted or lost."""

import csv
import gzip
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from spec_repro.base.errors import InvalidInput, SpecError, UnreadableItem
from spec_repro.data import load_data, tables


def columns(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = load_data(f"csv:{path}")
    features = dataset.features
    names = {name: getattr(features[name], "names", None) for name in features}
    return {name: [names[name][i] for i in dataset[name]] if names[name] else dataset[name][:] for name in features}


@pytest.mark.parametrize(
    ("name", "content", "ids", "texts"),
    [
        ("a.csv", "id,text\r\n1,a\r\n01,b\r\n", ["1", "01"], ["a", "b"]),
        ("a.csv", "id,text\r1,a\r2,b", ["1", "2"], ["a", "b"]),
        ("a.csv", "\ufeffid,text\n1,\n2,nan\n3, NA \n", ["1", "2", "3"], ["", "nan", " NA "]),
        ("a.csv", 'id,text\n1,"a, b"\n2,"say ""c""\nd"\n3,5"\n', ["1", "2", "3"], ["a, b", 'say "c"\nd', '5"']),
        ("a.csv", "id,text\n\n1,a\n\n\n", ["1"], ["a"]),
        ("a.csv", f"id,text\n1,{'x' * 200_000}\n", ["1"], ["x" * 200_000]),
        ("A.CSV", "Label, TEXT ,ID\nx,a,1\n", ["1"], ["a"]),
        ("a.csv", "number,caption\n7,a\n8,b\n", ["1", "2"], ["a", "b"]),
        ("a.tsv", "id\ttext\n1\ta, b\n", ["1"], ["a, b"]),
        ("a.csv.gz", gzip.compress(b"id,text\n1,a\n", mtime=0), ["1"], ["a"]),
        ("a.jsonl", '{"id": 1, "text": "a"}\n\n{"text": "b", "id": 1.0}\n', ["1", "1.0"], ["a", "b"]),
        ("A.JSONL", '{"id": 123456789012345678901, "text": "\\u2028"}', ["123456789012345678901"], ["\u2028"]),
    ],
)
def test_what_is_read(tmp_path, name, content, ids, texts):
    found = columns(tmp_path / name, content)
    assert (found["id"], found["text"]) == (ids, texts)


def test_blank_lines_and_renamed_columns_are_told(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("number,caption\n7,a\n\n8,b\n\n")
    said = "2 rows found, 2 left out: blank lines 2."
    assert f"Column caption is read as text. {said}" in load_data(f"csv:{tmp_path}/a.csv").info.description
    assert said in caplog.text


def test_factors_of_json_stay_as_they_are_written(tmp_path):
    rows = [{"text": f"t{i}", "label": i % 2, "score": "a" if i < 3 else "b", "good": i > 1} for i in range(5)]
    found = columns(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)).replace('"label": 1', '"label": 1.50'))
    assert found["label"] == ["0", "1.50", "0", "1.50", "0"]
    assert found["good"] == ["False", "False", "True", "True", "True"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,text,label\n1,A man, a plan,en\n2,Fish, chips,en\n", "found 4 fields in row 1 .*A man.*, 3 in the header"),
        ("text,label\nA man,x,\nA dog,y,\n", "found 3 fields in row 1"),
        ("id,text\n1,a\n2\n", "found 1 fields in row 2"),
        ("id,text\n1,a\n2,b,c\n", "found 3 fields in row 2"),
        ("id,text\n1,a\n   \n", "found 1 fields in row 2"),
        ("id,text,text\n1,a,b\n", r"a name of its own: found \['id', 'text', 'text'\]"),
        ("id,Text,text\n1,a,b\n", "a name of its own"),
        (",text\n0,a\n", "a name of its own"),
        ("id;text\n1;a\n", "a name of its own: found .'id;text'"),
        ("id\ttext\n1\ta\n", "a name of its own"),
        (",".join(f"c{i}" for i in range(1001)) + "\n", "at most 1,000 columns"),
        ('id,text\n1,"a\n2,b\n', "unexpected end of data in line 3"),
        ('id,text\n1,"a"b\n', "expected after .* in line 2"),
        ("id,text\n1,a\n,b\n", "has no id in row 2"),
        ("id,text\n1,a\n1,b\n", "ids of .* must be unique; '1' in row 2 is '1' in row 1"),
        ("id,text\ncaf\u00e9,a\ncafe\u0301,b\n", r"'caf\\xe9' in row 2|'cafe\\u0301' in row 2 is 'caf\\xe9' in row 1"),
        ('id,text\n"a\nb",a\n"a\nb",b\n', r"'a\\nb' in row 2"),
        ("id,text\n1,a\n".encode("utf-16"), "found byte 0; convert it"),
        ("id,text\n1,a\n".encode("utf-16-le"), "found byte 1; convert it"),
        (b"id,text\n1,a\n2,\xe9\n", r"found byte 14; convert it \(line 3\)"),
        (b"id,text\n1,a\0\n", r"found byte 11; convert it \(line 2\)"),
        ("text,label\na,caf\u00e9\nb,cafe\u0301\nc,caf\u00e9\n", "names of classes must be unique"),
    ],
)
def test_what_is_refused(tmp_path, content, words):
    with pytest.raises((UnreadableItem, InvalidInput), match=words):
        columns(tmp_path / "t.csv", content)


@pytest.mark.parametrize(
    "second",
    [
        '{"id": "2", "text": null}',
        '{"id": "2", "text": 5}',
        '{"id": "2", "text": NaN}',
        '{"id": 2, "text": "b"}',
        '{"id": "2", "text": ["b"]}',
        '{"id": "2", "text": {"a": "b"}}',
        '{"id": "2", "text": "\\ud800"}',
        '{"id": "2"}',
        '{"text": "b"}',
        '{"id": "2", "text": "b", "more": "c"}',
        '{"id": "2", "text": "b", "text": "c"}',
        '{"id": "2", "te',
        '[["id", "2"], ["text", "b"]]',
        '"text"',
        "null",
        "{}",
        "[" * 100_000,
        '{"id": "2", "text": ' + '{"a":' * 100_000,
    ],
)
def test_a_line_of_json_that_differs_is_named(tmp_path, second):
    with pytest.raises(UnreadableItem, match=r"expected an object of texts .*t\.jsonl, found line 2: "):
        columns(tmp_path / "t.jsonl", f'{{"id": "1", "text": "a"}}\n{second}\n')


@pytest.mark.parametrize("name", ["t.txt", "t.xlsx", "t.csv.zip", "t"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(InvalidInput, match=r"expected a table that ends in \.csv, \.tsv or \.jsonl"):
        columns(tmp_path / name, "id,text\n1,a\n")


def test_limits_are_said_and_packed_files_that_are_cut_are_named(tmp_path, monkeypatch):
    whole = gzip.compress(b"id,text\n" + b"1,a\n" * 1000)
    with pytest.raises(UnreadableItem, match=r"t\.csv\.gz, found what does not read: EOFError"):
        columns(tmp_path / "t.csv.gz", whole[:-9])
    monkeypatch.setattr(tables, "CELL_LIMIT", 100)
    with pytest.raises(UnreadableItem, match="at most 100 cells: found more; split it"):
        columns(tmp_path / "t.csv.gz", whole)
    with gzip.open(tmp_path / "bomb.csv.gz", "wb", compresslevel=1) as file:
        for _ in range(257):
            file.write(b"\n" * 2**20)
    with pytest.raises(UnreadableItem, match=r"at most 256 MiB of text in .*bomb\.csv\.gz, found more; split it"):
        load_data(f"csv:{tmp_path}/bomb.csv.gz")


@pytest.mark.parametrize("kind", ["csv", "text"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UnreadableItem, match=r"expected an ordinary file at .*pipe\.csv"):
        load_data(f"{kind}:{tmp_path}/pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(UnreadableItem, match="expected an ordinary file"):
        load_data(f"{kind}:{tmp_path}/zero.csv")


def test_lines_of_every_system(tmp_path, caplog):
    (tmp_path / "t.txt").write_bytes("one\r\rtwo\u2028three\r\n\nfour\n".encode())
    dataset = load_data(f"text:{tmp_path}/t.txt")
    assert (dataset["id"][:], dataset["text"][:]) == (["1", "3", "5"], ["one", "two\u2028three", "four"])
    assert "3 texts found, 2 left out: empty lines 2." in dataset.info.description
    assert "empty lines 2" in caplog.text


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_a_writer_of_tables_wrote_is_read_back(tmp_path, rows, end):
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([("id", "text", "note"), *((i, *row) for i, row in enumerate(rows))])
    found, _ = tables.read_table(tmp_path / "t.csv")
    assert list(zip(found["text"], found["note"], strict=True)) == rows


@QUICK
@given(
    data=st.one_of(st.binary(max_size=60), st.text('"\r\n,;\t{}[]:0ae\u0301\ufeff ', max_size=60).map(str.encode)),
    head=st.sampled_from([b"", b"id,text\n", b'{"id": 1, "text": "a"}\n']),
    name=st.sampled_from(["csv:t.csv", "csv:t.tsv", "csv:t.jsonl", "csv:t.csv.gz", "text:t.txt"]),
)
def test_hostile_tables_are_read_or_refused_in_type(tmp_path, data, head, name):
    kind, file = name.split(":")
    (tmp_path / file).write_bytes(head + data)
    try:
        dataset = load_data(f"{kind}:{tmp_path}/{file}")
    except SpecError as error:
        found = str(error)
    else:
        found = file * (len(set(dataset["id"][:])) == len(dataset) > 0)
    assert file in found


@QUICK
@given(seed=st.integers(0, 2**31), more=st.booleans())
def test_a_field_that_is_added_or_dropped_never_passes(tmp_path, seed, more):
    stream = np.random.default_rng(seed)
    rows = [["id", "text", "label"], *([f"i{i}", f"t{stream.integers(9)}", "ab"[i % 2]] for i in range(6))]
    row = rows[stream.integers(1, 7)]
    row.insert(stream.integers(3), "more") if more else row.pop(stream.integers(3))
    (tmp_path / "t.csv").write_text("".join(",".join(cells) + "\n" for cells in rows))
    with pytest.raises(UnreadableItem, match=f"fields in row {rows.index(row)} "):
        load_data(f"csv:{tmp_path}/t.csv")


def test_a_column_may_be_named(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("id,file,body,note\n1,a.png,one x,n1\n2,b.png,two y,n2\n")
    assert load_data(f"csv:{table}")["text"][:] == ["a.png", "b.png"]
    found = load_data(f"csv:{table}", text_column="body")
    assert found["text"][:] == ["one x", "two y"]
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    found = load_data(f"csv:{table}", image_column="file", text_column="body")
    assert (found["image"][0].size, found["text"][0]) == ((4, 4), "one x")
    with pytest.raises(SpecError, match=r"unknown column of .*a\.csv 'bod'; did you mean 'body'"):
        load_data(f"csv:{table}", text_column="bod")


@pytest.mark.parametrize("form", ["csv", "text"])
def test_captions_of_coco_are_read_as_they_come(tmp_path, form):
    rows = [(9, 3, "a cat"), (9, 1, " a\nblack cat "), (2, 5, "a dog")]
    entries = [dict(zip(("image_id", "id", "caption"), row, strict=True)) for row in rows]
    (tmp_path / "captions.json").write_text(json.dumps({"images": [], "annotations": entries}))
    found = load_data(f"{form}:{tmp_path}/captions.json")
    assert found["text"][:] == ["a dog", "a black cat"]
    assert found["id"][:] == ["000000000002/5", "000000000009/1"]
    (tmp_path / "captions.json").write_text("[1]")
    with pytest.raises(UnreadableItem, match="COCO captions"):
        load_data(f"{form}:{tmp_path}/captions.json")
