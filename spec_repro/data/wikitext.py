"""``wikitext``: WikiText-2 in chunks of 100 tokens (the paper's Appendix B.2 and Figure 7).

The paper does not say how it cut the text. Here the lines of a split, headings included, are joined, split at white
space (WikiText is tokenised already), and cut into consecutive blocks; the remainder is dropped.
"""

from pathlib import Path

from datasets import Dataset

from spec_repro.base.errors import InvalidInput, unknown_name
from spec_repro.data.files import texts
from spec_repro.data.local import read_text
from spec_repro.data.offline.factors import subsample
from spec_repro.data.offline.pydoc import TOKENS, chunks
from spec_repro.data.registry import CARDS, dataset_loader
from spec_repro.data.sources import find, from_hub

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
    splits = CARDS["wikitext"].source.splits
    if split not in splits:
        raise unknown_name("split of data set 'wikitext':", split, splits)
    if tokens < 1:
        raise InvalidInput(f"tokens must be at least 1, found {tokens}.")
    _, files = find("wikitext", split, root)
    if files:
        text, description = _text(files[0]), f"Read from {files[0].parent.name}/{files[0].name}."
    else:
        copy = from_hub("wikitext", split, root)
        text, description = " ".join(copy["text"][:]), copy.info.description
    values = chunks(text, tokens)
    dataset = texts([f"{split}/{i:05d}" for i in range(len(values))], values, {}, description)
    n = min(CHUNKS, len(dataset)) if n is None else n
    return dataset.select(range(n)) if first and n <= len(dataset) else subsample(dataset, n, seed)


def _text(path: Path) -> str:
    if path.suffix != ".parquet":
        return read_text(path)
    from pyarrow.parquet import read_table

    return " ".join(read_table(path, columns=["text"])["text"].to_pylist())
