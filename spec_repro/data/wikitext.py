"""``wikitext``: WikiText-2 in chunks of 100 tokens (the paper's Appendix B.2 and Figure 7).

The paper does not say how it cut the text. Here the lines of a split, headings included, are joined, split at white
space (WikiText is tokenised already), and cut into consecutive blocks; the remainder is dropped.
"""

from pathlib import Path

from datasets import Dataset
from pyarrow.parquet import ParquetFile

from spec_repro.base.content import note, regular
from spec_repro.base.errors import InvalidInput, UnreadableItem, readable, shown
from spec_repro.data.files import texts
from spec_repro.data.offline.factors import subsample
from spec_repro.data.offline.pydoc import TOKENS, chunks
from spec_repro.data.registry import dataset_loader
from spec_repro.data.sources import find, from_hub
from spec_repro.data.tables import TEXT_LIMIT, read_text

CHUNKS = 10_000  # as many as the paper has


@dataset_loader("wikitext", takes=("n", "seed", "split", "root", "first", "tokens"))
def wikitext(
    *,
    n: int | None = None,
    seed: int = 0,
    split: str = "train",
    root: str | None = None,
    first: bool = False,
    tokens: int = TOKENS,
) -> Dataset:
    """n chunks (None: 10,000, or all if there are fewer) in their order, drawn by ``seed`` or the ``first`` ones.

    ``split`` is "train", "val" or "test"; ``tokens`` is the length of a chunk.
    """
    if tokens < 1:
        raise InvalidInput(f"tokens must be at least 1, found {tokens}.")
    base, parts, about = find("wikitext", split, root)
    if not parts:
        copy = from_hub("wikitext", split, root)
        text, about = " ".join(copy["text"][:]), copy.info.description
    else:
        text = (_of_parquet if parts[0].lower().endswith(".parquet") else read_text)(base / parts[0])
    values = chunks(text, tokens)
    if not values:
        raise UnreadableItem(f"expected at least {tokens} words, found {len(text.split())}. {about}")
    dataset = texts([f"{split}/{i:05d}" for i in range(len(values))], values, {}, about)
    n = min(CHUNKS, len(dataset)) if n is None else n
    return dataset.select(range(n)) if first and n <= len(dataset) else subsample(dataset, n, seed)


def _of_parquet(path: Path) -> str:
    """The rows of the column ``text``."""
    note(regular(path))
    with readable(f"a column of texts in {shown(path)}"), ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        if max(file.metadata.num_rows, sum(group.total_byte_size for group in groups)) > TEXT_LIMIT:
            raise UnreadableItem(f"expected at most {TEXT_LIMIT >> 20} MiB of text in {shown(path)}, found more.")
        return " ".join(file.read(columns=["text"])["text"].to_pylist())
