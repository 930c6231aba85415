"""Ranks of one computation, each a process of its own: forks of one process that has imported what they need."""

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
    """What ``task(*arguments)`` returns in each process (None where it ends without), and the exit codes.

    Two and more processes find what torchrun sets; one finds nothing.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = FORKS.Queue()
    started = [FORKS.Process(target=_rank, args=(rank, world, port, answers, task, arguments)) for rank in range(world)]
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


def _rank(rank, world, port, answers, task, arguments):
    torch.set_num_threads(1)
    if world > 1:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in told.items()})
    try:
        answers.put((rank, task(*arguments)))
        answers.close()
        answers.join_thread()
    except Exception:
        traceback.print_exc()
        sys.exit(3)
