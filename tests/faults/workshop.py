"""What the tests of faults share: children that run commands, how each ended in a word, and the tally of them all."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WHOLE = os.environ.get("FAULTS") == "whole"  # `make faults`; else the part that `make test` has time for
SEED = int(os.environ.get("FAULTS_SEED", 0))  # of what is generated
SECONDS = 25.0  # longer is a hang
GOOD = ("survived",)
UNEXPECTED = "Traceback|a mistake of this package"  # a line, but of an error that nobody has foreseen


@dataclass
class Ended:
    """How a child ended; negative codes are signals."""

    code: int
    hang: bool
    memory: int
    seconds: float
    out: str
    err: str
    words: list = field(default_factory=list)

    @property
    def typed(self) -> bool:
        """Whether it refused in words of its own: no traceback, one message."""
        said = [line for line in self.err.splitlines() if line.startswith("spec_repro: ") or ": error: " in line]
        return self.code in (1, 2, 130) and len(said) == 1 and not re.search(UNEXPECTED, self.err + self.out)

    @property
    def verdict(self) -> str:
        """In a word: survived (right or typed), or what went wrong. Whether a value is right is for the caller."""
        if self.hang:
            return "hang"
        if self.memory > 4e9 or "MemoryError" in self.err:
            return "memory"
        return "survived" if self.code == 0 or self.typed else "untyped"

    def brief(self) -> str:
        last = self.err.strip().splitlines()[-1:] or self.out.strip().splitlines()[-1:] or ["(silence)"]
        if last[0].startswith("failed: "):  # a notebook, of which the output tells
            last = [" | ".join(self.out.strip().splitlines()[-4:])]
        return f"rc {self.code}, {self.seconds} s: {last[0][:300]}"


class Workshop:
    """The server, started once for each process of the tests."""

    def __init__(self, rooms: Path):
        self.rooms, self.count = rooms, 0
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        self.server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, **order):
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, folder: Path, *words, **order) -> tuple[int, Path, list]:
        """Start ``python -m spec_repro WORDS`` (or the ``call`` of the order) in ``folder``."""
        self.count += 1
        room = self.rooms / str(self.count)
        room.mkdir()
        if words:
            order["words"] = [str(word) for word in words]
        return self.ask(folder=str(folder), room=str(room), **order), room, order.get("words", order.get("with"))

    def end(self, started: tuple[int, Path, list], seconds: float = SECONDS) -> Ended:
        number, room, words = started
        answer = self.ask(wait=number, seconds=seconds)
        texts = [(room / name).read_text(errors="replace") if (room / name).exists() else "" for name in ("out", "err")]
        shutil.rmtree(room)
        return Ended(**answer, out=texts[0], err=texts[1], words=words)

    def run(self, folder: Path, *words, seconds: float = SECONDS, **order) -> Ended:
        return self.end(self.start(folder, *words, **order), seconds)

    def close(self) -> None:
        with self.server:
            self.server.stdin.close()


class Tally:
    """What was tried for one row of the table; ``verdict()`` fails the test for whatever did not survive."""

    def __init__(self, row: str):
        self.row, self.counts, self.failures = row, Counter(), {}

    def add(self, verdict: str, what: str, why: str = "", kind: str = "") -> None:
        """Count one; of failures of a kind (by default of all with the same last words) the shortest is kept."""
        self.counts[verdict] += 1
        if verdict not in GOOD:
            key = verdict, kind or re.sub(r"/\S+|\.\S+\.partial|\d+", "*", why)
            if key not in self.failures or len(what) < len(self.failures[key][0]):
                self.failures[key] = what, why

    def close(self, allowed: float = 0.0) -> None:
        if path := os.environ.get("FAULTS_TALLY"):
            with open(path, "a") as file:
                told = [[verdict, *each] for (verdict, _), each in self.failures.items()]
                file.write(json.dumps({"row": self.row, "counts": self.counts, "failures": told}) + "\n")
        shown = [f"{verdict}: {what}\n    {why}" for (verdict, _), (what, why) in self.failures.items()]
        bad = sum(count for verdict, count in self.counts.items() if verdict not in (*GOOD, "untyped"))
        untyped = self.counts["untyped"] / max(1, self.counts.total())
        if bad or untyped > allowed:
            pytest.fail(f"{self.row}: {dict(self.counts)}\n" + "\n".join(shown), pytrace=False)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and link below a folder with its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = b"-> " + os.readlink(path).encode()
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def leftovers(folder: Path) -> list[str]:
    """What a process that died may leave, and the next one should have removed."""
    endings = (".partial", ".old", ".tmp")
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith(endings)]


def chosen(things: list, seed: int, most: int, whole: int = 10**9) -> list:
    """All of them, at most ``whole``; for `make test` at most so many. Drawn by the seeds, in their order."""
    some = random.Random(f"{seed} {SEED}").sample(range(len(things)), min(whole if WHOLE else most, len(things)))
    return [things[i] for i in sorted(some)]
