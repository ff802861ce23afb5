"""Signals, and what goes wrong in the processes that make mixtures."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch

from dsn_lite.errors import InputError, one_line


def one_thread(worker: int) -> None:
    """Keep a process that makes mixtures to one thread; it ends when the first process does, which heeds signals."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """One line for what goes wrong in the processes that make mixtures."""
    try:
        yield
    except (InputError, OSError) as error:  # a worker hands on its whole traceback; the last line says it
        raise InputError(str(error).strip().splitlines()[-1].removeprefix("dsn_lite.errors.InputError: ")) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        cure = "go on with --resume, with fewer --workers if memory was short"
        raise InputError(f"a process that makes mixtures ended ({one_line(error)[:120]}); {cure}") from error


@contextlib.contextmanager
def signals_noted(is_wanted: bool) -> Iterator[list[int]]:
    """A list that gets the number of a first SIGINT or SIGTERM; a second one acts as ever. In the main thread only."""
    noted: list[int] = []
    if not is_wanted or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        put_back()
