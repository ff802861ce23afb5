"""`dsn-lite export`: the network as an ONNX graph of one frame."""

from __future__ import annotations

import argparse
from pathlib import Path

from dsn_lite.commands._files import Outputs
from dsn_lite.commands._options import PRESETS, add_command, add_model, load_or_make
from dsn_lite.errors import InputError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "export", run, help="write the network as ONNX, one frame a run",
        description="Write a network as an ONNX graph that takes one frame of the spectrum and its states and skips what "
        "is closed (`If`). Its metadata say how to feed it.",
        epilog="examples:\n  dsn-lite export -o benefit.onnx\n  dsn-lite export --model static -o static.onnx",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the .onnx file to write")
    add_model(parser, more=PRESETS)


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    Outputs([], args.model).claim(args.output, "--output")
    try:
        from dsn_lite.engine import onnx
        from dsn_lite.engine.graph import count_nodes

        model = onnx.save(load_or_make(args.model, kinds=("enhancer",)), args.output)
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise InputError("export needs the package onnx: pip install onnx") from None
    print(
        f"{args.output}: {args.output.stat().st_size / 1e3:.0f} kB, opset {onnx.OPSET}, "
        f"{count_nodes(model.graph)} nodes on an open frame, {count_nodes(model.graph, is_open=False)} on a closed one"
    )
    return 0
