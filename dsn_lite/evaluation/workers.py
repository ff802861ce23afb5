"""Pairs scored by several processes, each with a model of its own and one thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any

import torch

from dsn_lite.data.cache import progress
from dsn_lite.errors import InputError
from dsn_lite.evaluation.folders import Pair

Task = Callable[..., Any]
_worker_model = None


def _start_worker(model) -> None:
    global _worker_model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, once and without noise
    torch.set_num_threads(1)
    _worker_model = model


def _guarded(task: Task, pair: Pair, model=None) -> Any:
    """The result of ``task``, or one line if the file is at fault."""
    try:
        return task(pair, _worker_model if model is None else model)
    except InputError as error:
        line = str(error)
        return line if pair.name in line else f"{pair.name}: {line}"


class Workers:
    """Processes of one thread each that hold the model; one job runs in this process."""

    def __init__(self, model, jobs: int):
        self._model, self._jobs = model, jobs
        self._pool: ProcessPoolExecutor | None = None

    def map(self, task: Task, found: Sequence[Pair], text: str) -> tuple[dict[str, Any], list[str]]:
        """``task`` on each pair: results by name, and the error lines in the order of the names."""
        outcomes: dict[str, Any] = {}
        if self._jobs == 1:
            with _one_thread():
                for pair in progress(found, len(found), text):
                    outcomes[pair.name] = _guarded(task, pair, self._model)
        else:
            for pair in self._run(task, found, text, outcomes):
                # A process died and took its neighbours along: one at a time shows which file did it.
                if self._run(task, [pair], text, outcomes):
                    outcomes[pair.name] = (
                        f"{pair.name}: the process that scored it died (memory?); cut it or leave it out"
                    )
        done = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, str)}
        return done, [line for _, line in sorted(outcomes.items()) if isinstance(line, str)]

    def _run(self, task: Task, found: Sequence[Pair], text: str, outcomes: dict) -> list[Pair]:
        """Fill ``outcomes`` from the pool; the pairs that were lost with a dead process come back."""
        lost = []
        with _one_thread_environment():
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self._jobs, get_context("spawn"), initializer=_start_worker, initargs=(self._model,)
                )
            futures = {self._pool.submit(_guarded, task, pair): pair for pair in found}
            for future in progress(as_completed(futures), len(futures), text):
                try:
                    outcomes[futures[future].name] = future.result()
                except BrokenProcessPool:
                    lost.append(futures[future])
        if lost:
            self.close()
        return lost

    def close(self) -> None:
        """End the processes; the next task starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextmanager
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _one_thread_environment():
    """Variables that the numerical libraries of a new process read when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def cores() -> int:
    """Processors that this process may use."""
    with suppress(AttributeError):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
