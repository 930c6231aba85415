"""Sentences for ``synthetic-text`` from a language model, as the paper had them: ``generate_sentences.py FILE.jsonl``.

Optional; the experiments use the templates of ``synthetic-text``. Needs ``pip install openai``, whose client reads the
variables OPENAI_API_KEY and OPENAI_BASE_URL (for an endpoint other than OpenAI's). Each answer is written at once, and
a started file is continued. ``load_data("csv:FILE.jsonl")`` reads it, with the attributes as factors.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from spec_repro.data.offline.sentences import GRID

# The paper's prompt (its Appendix B.2) in other words, with its lists word by word.
PROMPT = (
    "You are an expert in improving prompts for text-to-image models. Write one prompt about a person who has a "
    "profession, an emotion and a gender, and who performs an action with an object. Choose each of these freely from "
    "the lists below. Answer with the prompt alone.\n"
) + "\n".join(f"{name.capitalize()}: {', '.join(values)}." for name, values in GRID.items())


def attributes(text: str) -> dict[str, str]:
    """Which value of each of the paper's lists a sentence has; empty if there is none."""
    words = text.lower()
    return {name: next((v for v in values if re.search(rf"\b{v}\b", words)), "") for name, values in GRID.items()}


def generate(path: Path, n: int, ask: Callable[[int], str]) -> None:
    """Bring the file to n sentences, one JSON object a line; ``ask(i)`` gives sentence i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)  # what a killed process left of one more line
        for i in range(content.count(b"\n"), n):
            text = " ".join(ask(i).split())
            if not text:
                raise ValueError(f"expected a sentence, the model gave an empty answer for {i}; run again to continue.")
            row = {"id": f"{i:05d}", "text": text, **attributes(text)}
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("path", metavar="FILE.jsonl", type=Path)
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--model", default="gpt-4o")
    options = parser.parse_args()
    from openai import OpenAI

    client = OpenAI(timeout=120, max_retries=4)
    messages = [{"role": "user", "content": PROMPT}]

    def ask(i: int) -> str:
        answer = client.chat.completions.create(model=options.model, seed=i, messages=messages)
        return answer.choices[0].message.content

    generate(options.path, options.n, ask)


if __name__ == "__main__":
    main()
