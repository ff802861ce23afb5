"""`dsn-lite bench`: microseconds a frame on this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dsn_lite.commands._files import Outputs
from dsn_lite.commands._options import PRESETS, add_command, add_model, load_or_make, number, whole


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "bench", run, help="measure microseconds a frame on this machine",
        description="Measure what a frame of 16 ms costs here, on one thread: all gates open, all closed, the learned "
        "ones on noisy speech, the network without gates, the engines side by side.",
        epilog="examples:\n  dsn-lite bench\n  dsn-lite bench --model base --json bench.json --picture bench.png\n"
        "  dsn-lite bench --recordings street/*.wav --seconds 30",
    )  # fmt: skip
    add_model(parser, more=PRESETS)
    told = "noisy speech to run on, a stretch of each"
    parser.add_argument("--recordings", nargs="+", type=Path, default=(), metavar="FILE", help=told)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them (.png, .svg, .pdf)")
    told = "to compare; the first gives the main figures"
    parser.add_argument("--engines", default="kernel,onnx,torch", metavar="LIST", help=told)
    parser.add_argument("--seconds", type=number(0.01, 1e6), default=10.0, help="of noisy speech (default: 10)")
    parser.add_argument("--passes", type=whole(1), default=15, help="times that each frame is measured (default: 15)")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    # Before any library starts its threads.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from dsn_lite.engine import bench
    from dsn_lite.evaluation.provenance import provenance, write_json
    from dsn_lite.plots import bench_figure, check_name, save

    if args.picture:
        check_name(args.picture)
    outputs = Outputs(args.recordings, args.model)
    for option, path in (("--json", args.json), ("--picture", args.picture)):
        if path:
            outputs.claim(path, option)
    result = bench.measure(
        load_or_make(args.model, kinds=("enhancer",)), engines=tuple(args.engines.split(",")),
        recordings=args.recordings, seconds=args.seconds, passes=args.passes,
    )  # fmt: skip
    result["provenance"] = provenance(("numba", "numpy", "onnxruntime", "torch"))
    print(bench.table(result))
    if args.json:
        write_json(args.json, result)
    if args.picture:
        save(bench_figure(result), args.picture)
    return 0
