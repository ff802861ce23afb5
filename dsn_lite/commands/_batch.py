"""Files done one after the other: a line for each, one for what cannot be done, and a report of all."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from dsn_lite.commands._files import complain
from dsn_lite.errors import InputError
from dsn_lite.evaluation.provenance import write_json

Job = TypeVar("Job")
Work = Callable[[Path, Job, Callable[[float], object]], tuple[dict, str, list[InputError]]]


def do_all(
    jobs: dict[Path, Job], work: Work, failed: list[InputError], args: argparse.Namespace, model: str,
    more: Callable[[], dict] = dict,
) -> int:  # fmt: skip
    """Do the job of each file, whatever becomes of the others; returns the exit status.

    `work(source, job, progress)` gives a row of the report, a line for the user, and what is wrong although it was done;
    it may tell `progress` the share that is done, 0 to 1. `more()` is what the report ends with.
    """
    rows = []
    sizes = [path.stat().st_size if path.exists() else 0 for path in jobs]
    shown = "{percentage:3.0f}%|{bar:30}| {desc}, {remaining} left"
    try:
        for error in failed:
            complain(error)
        with tqdm(total=max(1, sum(sizes)), bar_format=shown, leave=False, delay=2, disable=None) as bar:
            before = 0
            for number, ((source, job), size) in enumerate(zip(jobs.items(), sizes, strict=True), start=1):
                bar.set_description_str(f"file {number} of {len(jobs)}", refresh=False)
                show = partial(_show, bar, before, size)
                row, line, faults = _guarded(work, source, job, show)
                failed += faults
                with tqdm.external_write_mode():
                    if row:
                        rows.append(row)
                        print(line, flush=True)
                    for error in faults:
                        complain(error)
                show(1.0)
                before += size
    finally:  # after an interruption too
        if args.report:
            content = {"model": model, "budget": args.budget, "policy": args.policy, "files": rows}
            content |= {"errors": [str(error) for error in failed], **more()}
            write_json(args.report, content)
    return 2 if failed else 0


def _guarded(work: Work, source: Path, job: Job, progress: Callable[[float], object]):
    """What `work` gives; a fault of ours must not cost the other files."""
    try:
        return work(source, job, progress)
    except InputError as error:
        return None, "", [error]
    except Exception as error:
        traceback.print_exc()
        return None, "", [InputError(f"{source}: {error!r} inside dsn-lite; please report it")]


def _show(bar: tqdm, before: int, size: int, share: float) -> None:
    bar.update(before + share * size - bar.n)
