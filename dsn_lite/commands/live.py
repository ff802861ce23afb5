"""`dsn-lite live`: microphone to speaker."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dsn_lite.audio.files import format_of
from dsn_lite.commands._files import Outputs, complain
from dsn_lite.commands._options import add_command, add_gates, add_model
from dsn_lite.commands.enhance import check_asked
from dsn_lite.errors import InputError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "live", run, help="enhance from the microphone to the speaker",
        description="Enhance what the microphone hears and play it, 32 ms later plus what the sound card adds, with a "
        "meter of gates and MMAC/s. Wear headphones: a speaker would be heard again. Ctrl-C ends it.",
        epilog="examples:\n  dsn-lite live\n  dsn-lite live --devices\n  dsn-lite live --file noisy.wav --out clean.wav",
    )  # fmt: skip
    add_model(parser)
    add_gates(parser)
    parser.add_argument("--engine", choices=("auto", "kernel", "onnx", "torch"), default="auto", help="what computes")
    parser.add_argument("--microphone", type=_device, metavar="DEV", help="number or part of the name, see --devices")
    parser.add_argument("--speaker", type=_device, metavar="DEV", help="likewise")
    parser.add_argument("--devices", action="store_true", help="list microphones and speakers")
    parser.add_argument("--file", type=Path, metavar="IN", help="take a sound file instead of the microphone")
    told = "write this file instead of playing (16 kHz, one channel)"
    parser.add_argument("--out", type=Path, metavar="OUT", help=told)


def _device(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    if (args.file is None) != (args.out is None):
        raise InputError("--file and --out belong together; give both, or neither for the sound card")
    if args.file:
        format_of(Outputs([args.file], args.model).claim(args.out, "--out"))
    from dsn_lite.engine import live

    if args.devices:
        print(live.sound_library().query_devices())
        return 0
    if args.file is None:
        live.sound_library()  # say that it is missing before anything is loaded
    import torch

    from dsn_lite import zoo
    from dsn_lite.engine.stream import Stream

    torch.set_num_threads(1)
    network = zoo.load(args.model, kinds=("enhancer",))
    check_asked(network, args)
    stream = Stream(network, budget=args.budget, policy=args.policy, engine=args.engine)
    live.warm_up(stream)
    meter = live.Meter(network)
    device: live.Files | live.SoundCard
    device = live.Files(args.file, args.out) if args.file else live.SoundCard(args.microphone, args.speaker)
    is_terminal = sys.stderr.isatty()
    show = (lambda line: print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)) if is_terminal else None
    try:
        with device:
            live.loop(stream, device, meter, show)
    except KeyboardInterrupt:
        pass  # the usual end
    finally:
        if is_terminal:
            print(file=sys.stderr)
    late = getattr(device, "dropouts", 0)
    print(meter.summary() + (f", {late} blocks came too late" if late else ""))
    damage = getattr(device, "damage", None)
    if damage:
        complain(damage)
    return 2 if damage else 0
