"""The paper's synthetic sentences anew, from a language model: ``python -m spec_repro.data.generated FILE.jsonl``.

Optional; the experiments use the templates of ``synthetic-text``. Asks an endpoint that speaks OpenAI's protocol: its
address is the variable OPENAI_BASE_URL, its key OPENAI_API_KEY, read from the environment alone. Each answer is written
at once, and a started file is continued. ``load_data("csv:FILE.jsonl")`` reads it, with the attributes as factors.
"""

import argparse
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from spec_repro.base.errors import DataMissing, GatedData, InvalidInput
from spec_repro.data.offline.sentences import GRID

__all__ = ["PROMPT", "attributes", "generate"]

# The dossier has the paper's prompt in other words (section 2.2), and the lists word by word.
PROMPT = (
    "You are an expert in improving prompts for text-to-image models. Write one prompt about a person who has a "
    "profession, an emotion and a gender, and who performs an action with an object. Choose each of these freely from "
    "the lists below. Answer with the prompt alone.\n"
) + "\n".join(f"{name.capitalize()}: {', '.join(values)}." for name, values in GRID.items())
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before a request is repeated, where the endpoint is busy or fails


def attributes(text: str) -> dict[str, str]:
    """Which value of each of the paper's lists a sentence has; empty where there is none."""
    words = text.lower()
    return {
        name: next((value for value in values if re.search(rf"\b{value}\b", words)), "")
        for name, values in GRID.items()
    }


def generate(
    path: str | os.PathLike, *, n: int = 10_000, model: str = "gpt-4o", pauses: Sequence[float] = PAUSES
) -> int:
    """Bring the file to n sentences, one JSON object a line; gives the number of sentences asked for now."""
    address = os.environ.get("OPENAI_BASE_URL")
    if not address:
        raise InvalidInput("set OPENAI_BASE_URL to the address of an endpoint, such as http://localhost:8000/v1.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        done = _whole_lines(file)
        for i in range(done, n):
            text = _ask(f"{address.rstrip('/')}/chat/completions", model, i, pauses)
            line = json.dumps({"id": f"{i:05d}", "text": text, **attributes(text)}, ensure_ascii=False)
            file.write(line.encode() + b"\n")
            file.flush()
    return max(0, n - done)


def _whole_lines(file) -> int:
    """The number of lines; what a killed process left of one more is cut off."""
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)
    return content.count(b"\n")


def _ask(address: str, model: str, seed: int, pauses: Sequence[float]) -> str:
    """One answer; a request that fails is repeated after each of the ``pauses``."""
    body = {"model": model, "seed": seed, "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    try:
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = " ".join(json.load(answer)["choices"][0]["message"]["content"].split())
        if text:
            return text
        raise ValueError("an empty answer")
    except (OSError, ValueError, LookupError, AttributeError) as error:
        status = 500
        if isinstance(error, urllib.error.HTTPError):
            status = error.code
            error.close()
        if status in (401, 403):
            raise GatedData(f"{address} refuses the key in OPENAI_API_KEY ({error}).") from error
        if not pauses or (status < 500 and status != 429):
            raise DataMissing(f"{address} gave no sentence ({error}); what is written is kept, run again.") from error
    time.sleep(pauses[0])
    return _ask(address, model, seed, pauses[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write synthetic sentences, as the paper had them from GPT-4o.")
    parser.add_argument("path", metavar="FILE.jsonl")
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--model", default="gpt-4o")
    options = parser.parse_args()
    print(f"{generate(options.path, n=options.n, model=options.model):,} sentences written to {options.path}")
