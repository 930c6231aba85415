"""``wikitext``: WikiText-2 in chunks of 100 tokens (the paper's Appendix B.2 and Figure 7).

The paper does not say how it cut the text. Here the lines of a split, headings included, are joined, split at white
space (WikiText is tokenised already), and cut into consecutive blocks; the remainder is dropped.
"""

import re
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset
from pyarrow.parquet import ParquetFile

from spec_repro.base.content import note, regular
from spec_repro.base.errors import UnreadableItem, readable, shown
from spec_repro.data.files import texts
from spec_repro.data.offline.factors import subsample
from spec_repro.data.offline.pydoc import TOKENS, chunks
from spec_repro.data.registry import dataset_loader
from spec_repro.data.sources import find, from_hub
from spec_repro.data.tables import TEXT_LIMIT, read_text

CHUNKS = 10_000  # as many as the paper has


@dataset_loader("wikitext")
def wikitext(*, n: int | None = None, seed: int = 0, split: str = "train", root: str | None = None) -> Dataset:
    """n chunks (None: 10,000, or all if there are fewer), drawn by ``seed``, in their order.

    ``split`` is "train", "val" or "test". ``article`` is the article that most words of a chunk are of.
    """
    base, parts, about = find("wikitext", split, root)
    if not parts:
        copy = from_hub("wikitext", split, root)
        text, about = "\n".join(copy["text"][:]), copy.info.description
    else:
        text = (_of_parquet if parts[0].lower().endswith(".parquet") else read_text)(base / parts[0])
    values = chunks(text)
    if not values:
        raise UnreadableItem(f"expected at least {TOKENS} words, found {len(text.split())}. {about}")
    articles = _articles(text, len(values))
    columns = {"article": articles} if articles[1] else {}
    dataset = texts([f"{split}/{i:05d}" for i in range(len(values))], values, columns, about)
    return subsample(dataset, min(CHUNKS, len(dataset)) if n is None else n, seed)


def _of_parquet(path: Path) -> str:
    """The rows of the column ``text``."""
    note(regular(path))
    with readable(f"a column of texts in {shown(path)}"), ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        if max(file.metadata.num_rows, sum(group.total_byte_size for group in groups)) > TEXT_LIMIT:
            raise UnreadableItem(f"expected at most {TEXT_LIMIT >> 20} MiB of text in {shown(path)}, found more.")
        return "\n".join(file.read(columns=["text"])["text"].to_pylist())


def _articles(text: str, count: int) -> tuple[list[int], ClassLabel | None]:
    """The article of each of the first ``count`` chunks, -1 before the first heading; None if there is no heading."""
    titles, owners, now = {}, [], -1
    for line in text.split("\n"):
        if heading := re.fullmatch(r"\s*= ([^=\s](?:.*[^=\s])?) =\s*", line):
            now = titles.setdefault(heading[1], len(titles))
        owners += [now] * len(line.split())
    blocks = np.array(owners[: count * TOKENS]).reshape(count, TOKENS)
    most = [int(np.bincount(block + 1).argmax()) - 1 for block in blocks]
    return most, ClassLabel(names=list(titles)) if titles else None
