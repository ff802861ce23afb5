"""`dsn-lite separate`: two talkers of one recording into two files."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dsn_lite.audio.files import FOREIGN, SUFFIXES
from dsn_lite.commands._batch import do_all
from dsn_lite.commands._files import Outputs, find
from dsn_lite.commands._options import add_budget, add_command, add_files, add_model
from dsn_lite.errors import InputError

_EPILOG = """\
examples:
  dsn-lite separate both.wav -o out/                 writes out/both-1.wav and out/both-2.wav
  dsn-lite separate recordings/ -o out/ --budget 0.3 --report out/report.json

Channels are averaged; rate and length stay. Which talker becomes 1 is left to chance, but stays the same through a file. A
file is separated as a whole, in about 1 MB of memory for each second. A file that cannot be used costs one line and exit
status 2; the others are still done.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "separate", run, help="separate two talkers", epilog=_EPILOG,
        description="Separate recordings of two talkers into one file for each.",
    )  # fmt: skip
    add_files(parser, "folder for the results")
    add_model(parser, default="separator")
    add_budget(parser, "the computation above the narrowest width")
    parser.add_argument(
        "--policy", type=_policy, default="learned", metavar="P",
        help="learned: the network chooses its width for each quarter of a second; open, closed: always its widest or "
        "narrowest; or one of its widths, such as 0.25 (default: learned)",
    )  # fmt: skip


def _policy(text: str) -> str | float:
    if text in ("learned", "open", "closed"):
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not learned, open, closed or a width") from None


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    folder = Path(args.output)
    if folder.suffix.lower() in SUFFIXES | FOREIGN and not folder.is_dir():
        raise InputError(f"{folder}: is a file name, but there are two results; name a folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the results")
    names, failed = find(args.inputs, folder)
    outputs = Outputs(names, args.model)
    wanted = {
        source: [folder / name.with_name(f"{name.stem}-{talker}.wav") for talker in (1, 2)]
        for source, name in names.items()
    }
    jobs = outputs.claim_each(wanted, failed)
    if args.report:
        outputs.claim(args.report, "--report")
    import torch

    from dsn_lite import zoo

    torch.set_num_threads(1)
    network = zoo.load(args.model, kinds=("separator",))

    def work(source: Path, results: list[Path], _) -> tuple[dict, str, list[InputError]]:
        row, damage = separate_file(network, source, results, budget=args.budget, policy=args.policy)
        return row, _summary(row), [damage] if damage else []

    return do_all(jobs, work, failed, args, network.name)


def separate_file(
    network, path: Path, outputs: list[Path], *, budget: float | None = None, policy: str | float = "learned"
) -> tuple[dict, InputError | None]:
    """Separate one file into two, each at its rate and of its length: its row of the report, and what is wrong with it."""
    from dsn_lite import audio

    started = time.perf_counter()
    with audio.Reader(path) as reader:
        wave = reader.read()
    result = network.separate(wave, reader.sample_rate, budget=budget, policy=policy)
    for output, talker in zip(outputs, result.waves, strict=True):
        audio.write(output, talker, reader.sample_rate, audio.kept_subtype(reader.subtype))
    seconds = wave.shape[1] / reader.sample_rate
    row = {
        "file": str(path),
        "outputs": [str(output) for output in outputs],
        "seconds": round(seconds, 6),
        "sample_rate": reader.sample_rate,
        "channels": len(wave),
        "utilisation": round(result.utilisation, 4),
        "activation": round(result.activation, 4),
        "mmacs_per_second": round(result.mmacs_per_second, 4),
        "widths": {f"{width:g}": round(float((result.widths == width).mean()), 4) for width in network.config.widths},
        "real_time_factor": round((time.perf_counter() - started) / seconds, 4),
    }
    return row, reader.damage


def _summary(row: dict) -> str:
    names = " and ".join(row["outputs"])
    cost = f"mean width {row['utilisation']:.2f}, {row['mmacs_per_second']:.1f} MMAC/s"
    return f"{names}: {row['seconds']:.1f} s, {cost}, {1 / row['real_time_factor']:.0f} times real time"
