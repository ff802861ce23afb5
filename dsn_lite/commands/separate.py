"""`dsn-lite separate`: two talkers of one recording into two files."""

from __future__ import annotations

import argparse
import json
import time
import traceback
from pathlib import Path

from dsn_lite.audio.files import SUFFIXES, replacing
from dsn_lite.commands.enhance import complain, find, protect_inputs, read_budget
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
        "--budget", type=read_budget, metavar="B",
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
    if folder.suffix.lower() in SUFFIXES and not folder.is_dir():
        raise InputError(f"{folder}: is a file name, but there are two results; name a folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the results")
    names, failed = find([Path(text) for text in args.inputs], folder)
    protect_inputs(args.report, names)
    import torch

    from dsn_lite import zoo

    torch.set_num_threads(1)
    network = zoo.load(args.model, kinds=("separator",))
    for error in failed:
        complain(error)
    done: list[dict] = []
    try:
        _separate_all(names, folder, network, args, done, failed)
    finally:  # after an interruption too
        if args.report:
            _write_report(args, network.name, done, failed)
    return 2 if failed else 0


def _separate_all(
    names: dict[Path, Path], folder: Path, network, args: argparse.Namespace, done: list[dict], failed: list[InputError]
) -> None:
    takers: dict[Path, Path] = {}
    for source, name in names.items():
        outputs = [folder / name.with_name(f"{name.stem}-{number}.wav") for number in (1, 2)]
        try:
            taker = takers.setdefault(outputs[0], source)
            if taker != source:
                raise InputError(f"{source}: {outputs[0]} is the result of {taker} already; rename one or run twice")
            for output in outputs:
                protect_inputs(output, names)
            row = separate_file(network, source, outputs, budget=args.budget, policy=args.policy)
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


def separate_file(
    network, path: Path, outputs: list[Path], *, budget: float | None = None, policy: str | float = "learned"
) -> dict:
    """Separate one file into two, each at its rate and of its length; returns its row of the report.

    Raises
    ------
    InputError
        The file cannot be read, or a result cannot be written.
    """
    from dsn_lite import audio

    started = time.perf_counter()
    sound = audio.read(path)
    result = network.separate(sound.wave, sound.sample_rate, budget=budget, policy=policy)
    for output, wave in zip(outputs, result.waves, strict=True):
        audio.write(output, wave, sound.sample_rate, sound.subtype if sound.subtype.startswith(("PCM", "FLOAT")) else None)
    used = {f"{width:g}": round(float((result.widths == width).mean()), 4) for width in network.config.widths}
    return {
        "file": str(path),
        "outputs": [str(output) for output in outputs],
        "seconds": round(sound.seconds, 6),
        "sample_rate": sound.sample_rate,
        "channels": len(sound.wave),
        "utilisation": round(result.utilisation, 4),
        "activation": round(result.activation, 4),
        "mmacs_per_second": round(result.mmacs_per_second, 4),
        "widths": used,
        "real_time_factor": round((time.perf_counter() - started) / sound.seconds, 4),
    }


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
