"""A slow text embedding with a log; as a script, a parent of processes that embed and may be killed.

It imports once and then obeys lines of JSON: ``{"log": ..., "result": ..., "environment": {...}}`` starts a process and
answers its number, ``{"wait": NUMBER}`` answers its exit code, negative for the signal that killed it.
"""

import json
import os
import sys
import time

import numpy as np
import torch

from spec_repro.data import load_data
from spec_repro.embeddings import embed


class Toy:
    """Two numbers of a text: the sum of its code points modulo 1,000, and its length."""

    name, dim, modality, revision, license = "toy", 2, "text", "1", "none"

    def __init__(self, log, pause=0.0):
        self.log, self.pause = log, pause

    def prepare(self, item):
        return item

    def __call__(self, batch):
        time.sleep(self.pause)
        with open(self.log, "a") as file:
            file.write("".join(text + "\n" for text in batch))
        return torch.tensor([[sum(map(ord, text)) % 1000, len(text)] for text in batch], dtype=torch.float32)


if __name__ == "__main__":
    texts = load_data("synthetic-text", n=800)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                os.environ.update(order["environment"])
                vectors = embed(texts, Toy(order["log"], pause=0.01), batch_size=8, chunk_rows=40)
                np.save(order["result"], vectors)
                os._exit(0)
        print(answer, flush=True)
