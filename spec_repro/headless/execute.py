"""One notebook through papermill, in a process of its own: ``python execute.py SOURCE TARGET < parameters.json``.

The runner starts this file by its path, so that the process loads papermill and not the whole package. The notebook's
own kernel runs in the folder of SOURCE; a failing cell and the end of its traceback go to standard output.
"""

import json
import re
import signal
import sys
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

TRACEBACK_LINES = 12
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main(source: str, target: str) -> int:
    """Execute and write the executed copy; 0, or 1 for a failing cell, or 130 after an interrupt."""
    folder = str(Path(source).parent)
    try:
        papermill.execute_notebook(
            source, target, json.load(sys.stdin), kernel_name="python3", progress_bar=False, cwd=folder
        )
    except PapermillExecutionError as error:
        traceback = COLOURS.sub("", "\n".join(error.traceback)).splitlines()
        print(f"cell [{error.exec_count}] of {Path(source).name} failed:\n{error.source}\n")
        print("\n".join(traceback[-TRACEBACK_LINES:]))
        return 1
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    # A run in the background starts with interrupts ignored; the runner's must still end this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(*sys.argv[1:]))
