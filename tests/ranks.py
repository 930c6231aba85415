"""Ranks of one computation, each a process of its own: forks of one process that has imported what they need.

Each has the environment of its moment, and those of a world of two and more what torchrun sets.
"""

import multiprocessing
import os
import socket
import sys
import time
import traceback

import torch

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["accelerate.utils", "datasets", "open_clip", "pytest", "spec_repro.align", "spec_repro.headless.comparison"]
)


def in_ranks(world, task, *arguments):
    """What ``task(*arguments)`` returns in each process (None where it ends without), and the exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = FORKS.Queue()
    told = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if world > 1 else {}
    started = []
    for rank in map(str, range(world)):
        environment = os.environ | ({"RANK": rank, "LOCAL_RANK": rank} | told if told else {})
        started.append(FORKS.Process(target=_rank, args=(int(rank), environment, answers, task, arguments)))
    for process in started:
        process.start()
    found, limit = {}, time.monotonic() + 240
    while len(found) < world and any(process.is_alive() for process in started) and time.monotonic() < limit:
        found |= _told(answers)
        time.sleep(0.02)
    for process in started:
        process.join(30)
    found |= _told(answers)
    return [found.get(rank) for rank in range(world)], [process.exitcode for process in started]


def _told(answers):
    found = {}
    while not answers.empty():
        rank, answer = answers.get()
        found[rank] = answer
    return found


def _rank(rank, environment, answers, task, arguments):
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    try:
        answers.put((rank, task(*arguments)))
        answers.close()
        answers.join_thread()
    except Exception:
        traceback.print_exc()
        sys.exit(3)


def spec_repro(words):
    """``spec-repro WORDS``; its status. The core alone needs nothing that the command does."""
    from spec_repro.__main__ import main

    return main(words)


def commanded(world, folder, *words, how="", program=spec_repro):
    """The status of ``spec-repro WORDS`` in each process, and what all have said; ``how`` is their standard output."""
    folder.mkdir()
    statuses, _ = in_ranks(world, _command, folder, how, [str(word) for word in words], program)
    return statuses, *("".join(path.read_text() for path in sorted(folder.glob(f"*.{end}"))) for end in ("out", "err"))


def torchrun(words):
    """``torchrun WORDS``, which starts processes of its own; its status."""
    from torch.distributed.run import main as launch

    launch(words)
    return 0


def _command(folder, how, words, program):
    rank = os.environ.get("RANK", "0")
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if how == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    if how == "closed":  # as Python finds it when it starts
        os.close(1)
        sys.stdout = None
    if how == "ascii":
        sys.stdout.reconfigure(encoding="ascii", errors="strict")
    return program(words)
