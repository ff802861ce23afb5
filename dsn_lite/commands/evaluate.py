"""``dsn-lite evaluate``: how good, at what cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dsn_lite.commands._files import Outputs
from dsn_lite.commands._options import add_budget, add_command, add_model, whole

_POLICIES = ("learned", "open", "closed", "random", "frozen", "snr", "energy", "other", "shifted", "known")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "evaluate", run, help="score a model on pairs of clean and noisy files",
        description="Score a model on a folder with clean/ and noisy/ files of the same names (wav or flac) and "
        "perhaps a pairs.csv (file,snr_db): PESQ, STOI, ESTOI, SI-SDR, DNSMOS, MMAC/s, activation. Prints a table.",
    )  # fmt: skip
    parser.add_argument("pairs", metavar="PAIRS", help="folder with clean/, noisy/ and perhaps pairs.csv")
    add_model(parser, more=", or 'noisy' for the input alone")
    parser.add_argument(
        "--policy", choices=_POLICIES, default="learned",
        help="who decides the gates; from random on with the mean activation of learned: drawn at random, the best "
        "frozen set, by SNR (an oracle), by energy, of another recording, two seconds late, by the gain known afterwards "
        "(a ceiling)",
    )  # fmt: skip
    add_budget(parser, "the switchable computation")
    told = "one constant width, such as 0.25, of a network of widths"
    parser.add_argument("--width", type=float, metavar="U", help=told)
    told = "leave out DNSMOS, which takes most of the time"
    parser.add_argument("--no-dnsmos", dest="mos", action="store_false", help=told)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, file by file, to FILE")
    parser.add_argument("--jobs", type=whole(1), metavar="N", help="processes (default: one for each core)")
    told = "of random gates and bootstrap intervals (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=0, help=told)


def run(args: argparse.Namespace) -> int:
    """Evaluate; 0, or 2 if a file could not be scored (the others were)."""
    from dsn_lite import evaluation
    from dsn_lite.evaluation.provenance import write_json
    from dsn_lite.zoo import load

    if args.json:
        pairs = Path(args.pairs)
        inputs = [pairs / "pairs.csv", *(path for kind in ("clean", "noisy") for path in (pairs / kind).rglob("*"))]
        Outputs(inputs, args.model).claim(args.json, "--json")
    model = evaluation.Identity() if args.model == "noisy" else load(args.model, kinds=("enhancer", "slim-demucs"))
    asked = {name: getattr(args, name) for name in ("policy", "budget", "width", "mos", "jobs", "seed")}
    results = evaluation.evaluate(model, args.pairs, **asked)
    print(table(results))
    if args.json:
        write_json(args.json, results)
    for line in results["errors"]:
        print(f"dsn-lite: {line}", file=sys.stderr)
    return 2 if results["errors"] else 0


_COLUMNS = (
    ("pesq", "PESQ", 2), ("stoi", "STOI", 3), ("estoi", "ESTOI", 3), ("si_sdr", "SI-SDR", 2), ("sig", "SIG", 2),
    ("bak", "BAK", 2), ("ovrl", "OVRL", 2), ("activation", "act.", 3), ("mmacs_per_second", "MMAC/s", 1),
)  # fmt: skip


def table(results: dict) -> str:
    """Lines for people: each SNR and all together, input above model, then the gates."""
    model = results["model"]
    wide = max(len(model), len("noisy"))
    lines = [f"{'SNR':>7} {'files':>5} {'':<{wide}}" + "".join(f"{title:>8}" for _, title, _ in _COLUMNS)]
    for label, group in (*((f"{snr} dB", group) for snr, group in results["by_snr"].items()), ("all", results)):
        lines.append(f"{label:>7} {group['files']:>5} {'noisy':<{wide}}{_figures(group['noisy'])}")
        if model != "noisy":
            lines.append(f"{'':>7} {'':>5} {model:<{wide}}{_figures(group)}")
    if model != "noisy":
        lines.append(f"{model}, 95 % intervals:")
        for key, title, digits in _COLUMNS:
            if results[f"{key}_ci"] is not None:
                low, high = results[f"{key}_ci"]
                lines.append(f"  {title:<8}{low:.{digits}f} to {high:.{digits}f}")
    for key, count in results["missing"].items():
        if results["mos"] or key not in ("sig", "bak", "ovrl"):
            lines.append(f"{key} had no value on {count} of {results['files']} files; they are left out of its mean")
    return "\n".join(lines + _gate_lines(results))


def _figures(group: dict) -> str:
    values = [(group.get(key), digits) for key, _, digits in _COLUMNS]
    return "".join(f"{'' if value is None else f'{value:.{digits}f}':>8}" for value, digits in values)


def _gate_lines(results: dict) -> list[str]:
    if not results["gates"]:
        return []
    lines = [
        f"policy {results['policy']}: {results['policy_description']}",
        f"{'gate':<22}{'rate':>7}  standard deviation over frames, within and over utterances; switches/s",
    ]
    for name, gate in results["gates"].items():
        deviations = "".join(f"{gate[key]:>8.3f}" for key in ("std_frames", "std_within_utterance", "std_utterances"))
        lines.append(f"{name:<22}{gate['rate']:>7.3f}{deviations}{gate['switches_per_second']:>8.2f}")
    for key, title in (("activation_snr_db", "SNR"), ("activation_noisy_ovrl", "OVRL of the input")):
        if results["spearman"][key] is not None:
            lines.append(f"rank correlation of activation with {title}: {results['spearman'][key]:+.2f}")
    return lines
