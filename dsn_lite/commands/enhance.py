"""`dsn-lite enhance`: make noisy recordings clean."""

from __future__ import annotations

import argparse
from pathlib import Path

from dsn_lite.audio.files import FOREIGN, SUFFIXES, format_of
from dsn_lite.commands._batch import do_all
from dsn_lite.commands._files import Outputs, find, picture_names
from dsn_lite.commands._options import add_command, add_files, add_gates, add_model
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


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "enhance", run, help="make noisy recordings clean", epilog=_EPILOG,
        description="Make noisy recordings clean: files and folders, any rate, channel count and length.",
    )  # fmt: skip
    add_files(parser, "folder for the results; for one FILE also a file name")
    add_model(parser)
    add_gates(parser)
    drawn = "draw what was open when (.png, .svg, .pdf); one picture a file"
    parser.add_argument("--gates", metavar="PNG", help=drawn)


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
        from dsn_lite.plots import check_name

        check_name(args.gates)
    import torch

    from dsn_lite import zoo
    from dsn_lite.engine.files import Report, enhance_file

    # A second thread gains little on layers this small, and on a busy machine it costs a lot.
    torch.set_num_threads(1)
    network = zoo.load(args.model, kinds=("enhancer", "slim-demucs"))
    check_asked(network, args)
    done: list[Report] = []

    def work(source: Path, job: tuple[Path, Path | None], progress) -> tuple[dict, str, list[InputError]]:
        output, picture = job
        report = enhance_file(
            network, source, output, budget=args.budget, policy=args.policy, gates_picture=picture, progress=progress
        )
        done.append(report)
        return report.to_json(), _summary(report), report.faults

    return do_all(jobs, work, failed, args, network.name, lambda: {"totals": _totals(done, len(failed))})


def plan(args: argparse.Namespace) -> tuple[dict[Path, tuple[Path, Path | None]], list[InputError]]:
    """By file where its result and its picture go, and an error for each input that cannot be done."""
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
    results = outputs.claim_each(
        {source: [out if is_file_name else out / name] for source, name in names.items()}, failed
    )
    if args.report:
        outputs.claim(args.report, "--report")
    pictures = picture_names(args.gates, [names[source] for source in results])
    for source, picture in zip(results, pictures, strict=True):
        if picture:
            outputs.claim(picture, f"--gates of {source}")
    return {source: (*results[source], picture) for source, picture in zip(results, pictures, strict=True)}, failed


def _summary(report) -> str:
    speed = f"{1 / report.real_time_factor:.0f} times real time"
    cost = f"activation {report.activation:.0%}, {report.mmacs_per_second:.1f} MMAC/s"
    notes = "".join(f"; {note}" for note in report.notes)
    return f"{report.output}: {report.seconds:.1f} s, {cost}, {speed}{notes}"


def _totals(done: list, errors: int) -> dict:
    """Sums and means over the files that were done: by their frames, the speed by their seconds."""

    def mean(values: list[float], weight: str = "frames") -> float | None:
        weights = [getattr(report, weight) for report in done]
        return round(sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights), 4) if done else None

    gates = done[0].gates if done else ()
    return {
        "files": len(done),
        "errors": errors,
        "seconds": round(sum(report.seconds for report in done), 6),
        "activation": mean([report.activation for report in done]),
        "mmacs_per_second": mean([report.mmacs_per_second for report in done]),
        "gates": {name: mean([report.gates[name] for report in done]) for name in gates},
        "real_time_factor": mean([report.real_time_factor for report in done], "seconds"),
    }
