"""What is on COCO's photographs and of which article a chunk of WikiText is, from files in their official layouts."""

import json

import paper_layouts
import pytest
from paper_layouts import objects_on

from spec_repro.base.errors import DataMissing, UnknownName, UnreadableItem
from spec_repro.data import factors_of, load_data

OBJECTS = "animal, surfboard, tennis racket"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    paper_layouts.coco(root)
    paper_layouts.wikitext(root)
    return root


def expected(n, kinds):
    count = sum(1 + crowd for category, crowd in objects_on(n) if category in kinds)
    return ("no", "one", "several")[min(count, 2)]


@pytest.mark.parametrize("name", ["coco", "coco-captions"])
def test_objects_are_factors_of_photographs_and_captions(root, name):
    dataset = load_data(name, root=root, objects=OBJECTS)
    factors, numbers = factors_of(dataset), dataset["image_id"][:]
    assert list(factors) == ["animal", "surfboard", "tennis_racket"]
    for column, kinds in (("animal", {17, 18, 20}), ("surfboard", {42}), ("tennis_racket", {43})):
        word = column.replace("_", " ")
        assert factors[column].tolist() == [f"{expected(n, kinds)} {word}" for n in numbers]
    assert {"no animal", "one animal", "several animal"} == set(factors["animal"])


def test_a_crowd_is_several_and_both_parts_are_read(root):
    dataset = load_data("coco", root=root, objects="sheep", split="all")
    found = dict(zip(dataset["image_id"][:], factors_of(dataset)["sheep"], strict=True))
    assert found[21] == "several sheep"  # one annotation, of a crowd
    assert found[9] == "no sheep"
    assert found[140] == "several sheep"
    assert len(found) == 23


def test_without_the_option_nothing_is_read(root, tmp_path):
    assert "animal" not in load_data("coco", root=root).column_names
    paper_layouts.coco(tmp_path)
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").unlink()
    load_data("coco", root=tmp_path)
    with pytest.raises(DataMissing, match=r"(?s)coco-instances.*instances_train2017\.json.*no copy of this set"):
        load_data("coco", root=tmp_path, objects="animal")


def test_an_unknown_object_is_named_with_the_near_miss(root):
    with pytest.raises(UnknownName, match="'surfbord'; did you mean 'surfboard'"):
        load_data("coco", root=root, objects="surfbord")


@pytest.mark.parametrize("content", ["{}", "[]", json.dumps(paper_layouts.instances([9]) | {"categories": []})])
def test_another_file_is_refused(tmp_path, content):
    paper_layouts.coco(tmp_path)
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text(content)
    with pytest.raises(UnreadableItem, match=r"COCO instances .* instances_train2017\.json|COCO instances"):
        load_data("coco", root=tmp_path, objects="animal")


def write_articles(root, lengths):
    lines, words = [], []
    for i, length in enumerate(lengths):
        lines += [f" = Article {i} = \n", " = = Section = = \n", " ".join(f"w{i}" for _ in range(length - 9)) + " \n"]
        words += [f"Article {i}"] * length
    path = root / "wikitext" / "wiki.train.raw"
    path.parent.mkdir()
    path.write_text("".join(lines))
    return words


def test_a_chunk_is_of_the_article_of_most_of_its_words(tmp_path):
    words = write_articles(tmp_path, [130, 90, 60, 120])
    dataset = load_data("wikitext", root=tmp_path)
    blocks = [words[i : i + 100] for i in range(0, 400, 100)]
    wanted = [max(sorted(set(block)), key=block.count) for block in blocks]
    assert factors_of(dataset)["article"].tolist() == wanted == ["Article 0", "Article 1", "Article 2", "Article 3"]


def test_the_articles_do_not_change_which_chunks_are_drawn(root):
    dataset = load_data("wikitext", root=root, n=8, seed=0)
    assert set(factors_of(dataset)) == {"article"}
    assert set(factors_of(dataset)["article"]) == {"Title"}


def test_a_text_without_headings_has_no_articles(tmp_path):
    path = tmp_path / "wikitext" / "wiki.train.raw"
    path.parent.mkdir()
    path.write_text(" ".join(["word"] * 250))
    assert "article" not in load_data("wikitext", root=tmp_path).column_names
