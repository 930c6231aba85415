"""A process that has imported torch alone: its forks run code as ``python -c`` does, two seconds sooner.

So tests see what a piece of code imports. Orders are lines of JSON, see `Fresh`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import torch  # noqa: F401  for the forks

ROOT = Path(__file__).parents[1]


class Fresh:
    """Starts the process; a call runs code in a fork, with these words in ``sys.argv``, and says how it ended."""

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], **pipes)

    def __call__(self, code, *words, environment=None):
        order = {"code": code, "words": list(map(str, words)), "environment": environment or dict(os.environ)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return subprocess.CompletedProcess(code, *json.loads(self.process.stdout.readline()))

    def close(self):
        with self.process:
            self.process.stdin.close()


def answer(order):
    """Exit code, output and errors of a fork."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        number = os.fork()
        if number == 0:
            run(order, out, errors)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        return [status, *(file.seek(0) or file.read() for file in (out, errors))]


def run(order, out, errors):
    """In the fork; never returns."""
    code = 1
    try:
        signal.alarm(300)  # ends what hangs
        sys.stdin.close()
        os.dup2(out.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv, sys.path[0] = ["-c", *order["words"]], str(ROOT)
        exec(order["code"], {"__name__": "__main__"})
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
