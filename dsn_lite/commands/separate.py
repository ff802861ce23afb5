"""`dsn-lite separate`: two talkers of one recording into two files."""

from __future__ import annotations

import argparse
import json
import time
import traceback
from pathlib import Path

from dsn_lite.audio.files import FOREIGN, SUFFIXES, replacing
from dsn_lite.commands._files import Outputs, complain, find
from dsn_lite.commands._numbers import number
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
    parser = subparsers.add_parser(
        "separate",
        help="separate two talkers",
        description="Separate recordings of two talkers into one file for each.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="sound files (wav, flac, ogg, mp3, ...) or folders")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--model", default="separator", metavar="NAME",
        help="see dsn-lite models, or a .safetensors file (default: separator)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=number(0, 1), metavar="B",
        help="wanted share of the computation above the narrowest width, 0 to 1 (default: as trained)",
    )  # fmt: skip
    parser.add_argument(
        "--policy", type=_policy, default="learned", metavar="P",
        help="learned: the network chooses its width for each quarter of a second; open, closed: always its widest or "
        "narrowest; or one of its widths, such as 0.25 (default: learned)",
    )  # fmt: skip
    parser.add_argument("--report", metavar="JSON", help="write widths, cost and speed of each file")
    parser.set_defaults(run=run)


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
    jobs: dict[Path, list[Path]] = {}
    for source, name in names.items():
        results = [folder / name.with_name(f"{name.stem}-{number}.wav") for number in (1, 2)]
        try:
            jobs[source] = [outputs.claim(result, source) for result in results]
        except InputError as error:
            failed.append(error)
    if args.report:
        outputs.claim(args.report, "--report")
    import torch

    from dsn_lite import zoo

    torch.set_num_threads(1)
    network = zoo.load(args.model, kinds=("separator",))
    for error in failed:
        complain(error)
    done: list[dict] = []
    try:
        _separate_all(jobs, network, args, done, failed)
    finally:  # after an interruption too
        if args.report:
            _write_report(args, network.name, done, failed)
    return 2 if failed else 0


def _separate_all(
    jobs: dict[Path, list[Path]], network, args: argparse.Namespace, done: list[dict], failed: list[InputError]
) -> None:
    for source, outputs in jobs.items():
        try:
            row, damage = separate_file(network, source, outputs, budget=args.budget, policy=args.policy)
        except InputError as error:
            failed.append(error)
            complain(error)
        except Exception as error:  # a fault of ours must not cost the other files
            traceback.print_exc()
            failed.append(InputError(f"{source}: {error!r} inside dsn-lite; please report it"))
            complain(failed[-1])
        else:
            done.append(row)
            print(_summary(row), flush=True)
            if damage:
                failed.append(damage)
                complain(damage)


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
    used = {f"{width:g}": round(float((result.widths == width).mean()), 4) for width in network.config.widths}
    row = {
        "file": str(path),
        "outputs": [str(output) for output in outputs],
        "seconds": round(seconds, 6),
        "sample_rate": reader.sample_rate,
        "channels": len(wave),
        "utilisation": round(result.utilisation, 4),
        "activation": round(result.activation, 4),
        "mmacs_per_second": round(result.mmacs_per_second, 4),
        "widths": used,
        "real_time_factor": round((time.perf_counter() - started) / seconds, 4),
    }
    return row, reader.damage


def _summary(row: dict) -> str:
    names = " and ".join(row["outputs"])
    cost = f"mean width {row['utilisation']:.2f}, {row['mmacs_per_second']:.1f} MMAC/s"
    return f"{names}: {row['seconds']:.1f} s, {cost}, {1 / row['real_time_factor']:.0f} times real time"


def _write_report(args: argparse.Namespace, model: str, done: list[dict], failed: list[InputError]) -> None:
    content = {
        "model": model, "budget": args.budget, "policy": args.policy, "files": done,
        "errors": [str(error) for error in failed],
    }  # fmt: skip
    with replacing(args.report) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
