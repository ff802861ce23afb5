"""`dsn-lite enhance`: make noisy recordings clean."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from dsn_lite.audio.files import FOREIGN, SUFFIXES, format_of, replacing
from dsn_lite.commands._files import Outputs, complain, find, picture_names
from dsn_lite.commands._numbers import number
from dsn_lite.errors import InputError

_EPILOG = """\
examples:
  dsn-lite enhance noisy.wav -o out/
  dsn-lite enhance recordings/ more.flac -o out/ --report out/report.json
  dsn-lite enhance noisy.wav -o clean.wav --budget 0.3 --gates gates.png
  ffmpeg -i talk.m4a -f wav - | dsn-lite enhance /dev/stdin -o talk.wav

Files keep their names, rate, length, channels and encoding; folders are searched to the bottom, through links but without
what is hidden, and the names below them are kept. The network hears up to 8 kHz: of a recording with more, what lies above
is not kept. A file that cannot be used costs one line and exit status 2; the others are still done. Of one that is cut off
or damaged, what is there is enhanced, and a line says so.
"""


class Job(NamedTuple):
    """One file to enhance."""

    source: Path
    output: Path
    picture: Path | None


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "enhance",
        help="make noisy recordings clean",
        description="Make noisy recordings clean: files and folders, any rate, channel count and length.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="sound files (wav, flac, ogg, mp3, ...) or folders")
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder for the results; for one FILE also a file name"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="see dsn-lite models, or a .safetensors file (default: benefit)"
    )
    parser.add_argument(
        "--budget",
        type=number(0, 1),
        metavar="B",
        help="wanted share of the switchable computation, 0 to 1 (default: as trained)",
    )
    parser.add_argument(
        "--policy",
        choices=("learned", "open", "closed"),
        default="learned",
        help="who decides: the network, or everything always open or closed (default: learned)",
    )
    parser.add_argument(
        "--gates", metavar="PNG", help="draw what was open when (.png, .svg, .pdf); one picture a file"
    )
    parser.add_argument("--report", metavar="JSON", help="write activation, cost and speed of each file")
    parser.set_defaults(run=run)


def check_asked(network, args: argparse.Namespace) -> None:
    """Refuse what cannot be done with a network without gates."""
    from dsn_lite.engine.stream import check_budget

    check_budget(network, args.budget)
    if args.policy != "learned" and not len(network.gate_names):
        raise InputError(f"{network.name}: has no gates to hold {args.policy}; leave --policy out")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    jobs, failed = plan(args)
    if args.gates:
        from dsn_lite.plots import maps as figures

        figures.check_name(args.gates)
    import torch

    from dsn_lite import zoo

    # A second thread gains little on layers this small, and on a busy machine it costs a lot.
    torch.set_num_threads(1)
    network = zoo.load(args.model or zoo.DEFAULT, kinds=("enhancer", "slim-demucs"))
    check_asked(network, args)
    done: list = []
    try:
        for error in failed:
            complain(error)
        return _enhance_all(jobs, network, args, done, failed)
    finally:  # after an interruption too
        if args.report:
            write_report(args, network.name, done, failed)


def _enhance_all(jobs: list[Job], network, args: argparse.Namespace, done: list, failed: list[InputError]) -> int:
    from dsn_lite.engine.files import enhance_file

    bar = _Bar([job.source for job in jobs])
    for job in jobs:
        try:
            report = enhance_file(
                network, job.source, job.output, budget=args.budget, policy=args.policy,
                gates_picture=job.picture, progress=bar.show,
            )  # fmt: skip
        except InputError as error:
            failed.append(error)
            bar.clear()
            complain(error)
        except Exception as error:  # a fault of ours must not cost the other files
            bar.clear()
            traceback.print_exc()
            failed.append(InputError(f"{job.source}: {error!r} inside dsn-lite; please report it"))
            complain(failed[-1])
        else:
            done.append(report)
            bar.clear()
            print(_summary(report), flush=True)
            for error in report.faults:
                failed.append(error)
                complain(error)
        bar.next_file()
    return 2 if failed else 0


# ---------------------------------------------------------------------------------------------- what goes where
def plan(args: argparse.Namespace) -> tuple[list[Job], list[InputError]]:
    """Find the files and decide where each result goes: jobs, and an error for each input that cannot be done.

    Parameters
    ----------
    args : with `inputs`, files and folders; `output`, a folder, or a file name for one file; `gates`, the name of the
        picture (with several files each gets its own, `gates.png` -> `gates-NAME.png`); `report` and `model`
    """
    out = Path(args.output)
    is_file_name = not out.is_dir() and out.suffix.lower() in SUFFIXES | FOREIGN
    if is_file_name and (len(args.inputs) > 1 or Path(args.inputs[0]).is_dir()):
        raise InputError(f"{out}: is a file name, but there are several files; name a folder")
    if is_file_name and out.suffix.lower() != Path(args.inputs[0]).suffix.lower():
        format_of(out)
    if not is_file_name and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder for the results")

    names, failed = find(args.inputs, out)
    outputs = Outputs(names, args.model)
    pairs: list[tuple[Path, Path]] = []
    for source, name in names.items():
        try:
            pairs.append((source, outputs.claim(out if is_file_name else out / name, source)))
        except InputError as error:
            failed.append(error)
    if args.report:
        outputs.claim(args.report, "--report")
    pictures = picture_names(args.gates, [names[source] for source, _ in pairs])
    for (source, _), path in zip(pairs, pictures, strict=True):
        if path:
            outputs.claim(path, f"--gates of {source}")
    return [Job(*pair, path) for pair, path in zip(pairs, pictures, strict=True)], failed


# --------------------------------------------------------------------------------------------- what the user sees
def _summary(report) -> str:
    speed = f"{1 / report.real_time_factor:.0f} times real time"
    cost = f"activation {report.activation:.0%}, {report.mmacs_per_second:.1f} MMAC/s"
    notes = "".join(f"; {note}" for note in report.notes)
    return f"{report.output}: {report.seconds:.1f} s, {cost}, {speed}{notes}"


def write_report(args: argparse.Namespace, model: str, done: list, failed: list[InputError]) -> None:
    """Write the JSON report: the files that were done, those that were not and why, and totals over the first."""
    seconds = sum(report.seconds for report in done)

    def mean(values: list[float], weights: list[float]) -> float | None:
        return round(sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights), 4) if done else None

    frames = [report.frames for report in done]
    content = {
        "model": model,
        "budget": args.budget,
        "policy": args.policy,
        "files": [report.to_json() for report in done],
        "errors": [str(error) for error in failed],
        "totals": {
            "files": len(done),
            "errors": len(failed),
            "seconds": round(seconds, 6),
            "activation": mean([report.activation for report in done], frames),
            "mmacs_per_second": mean([report.mmacs_per_second for report in done], frames),
            "gates": {
                name: mean([report.gates[name] for report in done], frames) for name in (done[0].gates if done else ())
            },
            "real_time_factor": mean(
                [report.real_time_factor for report in done], [report.seconds for report in done]
            ),
        },
    }
    with replacing(args.report) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class _Bar:
    """A line on a terminal that tells how far the work is and how long it will still take; shown after two seconds."""

    def __init__(self, files: list[Path]):
        self._sizes = [path.stat().st_size if path.exists() else 0 for path in files]
        self._at = 0
        self._started = time.monotonic()
        self._shown = self._started + 1.9
        self._is_terminal = sys.stderr.isatty()

    def show(self, share: float) -> None:
        """`share` of the current file is done."""
        now = time.monotonic()
        if not self._is_terminal or now - self._shown < 0.1:
            return
        self._shown = now
        whole = (sum(self._sizes[: self._at]) + share * self._sizes[self._at]) / max(1, sum(self._sizes))
        left = (now - self._started) * (1 - whole) / max(whole, 1e-9)
        filled = "#" * round(30 * whole)
        text = f"[{filled:<30}] {whole:4.0%}  file {self._at + 1} of {len(self._sizes)}  {_clock(left)} left"
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)

    def next_file(self) -> None:
        """The current file is done."""
        self._at += 1

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
