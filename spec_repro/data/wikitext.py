"""``wikitext``: WikiText-2 in chunks of 100 tokens (the paper's Appendix B.2 and Figure 7).

The paper does not say how it cut the text. Here the lines of a split, headings included, are joined, split at white
space (WikiText is tokenised already), and cut into consecutive blocks; the remainder is dropped.
"""

from datasets import Dataset
from pyarrow.parquet import read_table

from spec_repro.base.errors import InvalidInput
from spec_repro.data.files import texts
from spec_repro.data.local import read_text
from spec_repro.data.offline.factors import subsample
from spec_repro.data.offline.pydoc import TOKENS, chunks
from spec_repro.data.registry import dataset_loader
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
    if tokens < 1:
        raise InvalidInput(f"tokens must be at least 1, found {tokens}.")
    base, parts, note = find("wikitext", split, root)
    if not parts:
        copy = from_hub("wikitext", split, root)
        text, note = " ".join(copy["text"][:]), copy.info.description
    elif parts[0].endswith(".parquet"):
        text = " ".join(read_table(base / parts[0], columns=["text"])["text"].to_pylist())
    else:
        text = read_text(base / parts[0])
    values = chunks(text, tokens)
    dataset = texts([f"{split}/{i:05d}" for i in range(len(values))], values, {}, note)
    n = min(CHUNKS, len(dataset)) if n is None else n
    return dataset.select(range(n)) if first and n <= len(dataset) else subsample(dataset, n, seed)
