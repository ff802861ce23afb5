"""``dsn-lite evaluate``: how good, at what cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dsn_lite.commands._files import Outputs

_POLICIES = ("learned", "open", "closed", "random", "frozen", "snr", "energy", "other", "shifted", "known")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a model on pairs of clean and noisy files",
        description="Score a model on a folder with clean/ and noisy/ files of the same names (wav or flac) and "
        "perhaps a pairs.csv (file,snr_db): PESQ, STOI, ESTOI, SI-SDR, DNSMOS, MMAC/s, activation. Prints a table.",
    )
    parser.add_argument("pairs", metavar="PAIRS", help="folder with clean/, noisy/ and perhaps pairs.csv")
    parser.add_argument(
        "--model",
        default="benefit",
        metavar="NAME|FILE",
        help="model, or 'noisy' for the input alone (default: %(default)s)",
    )
    parser.add_argument(
        "--policy",
        choices=_POLICIES,
        default="learned",
        help="who decides the gates; from random on with the mean activation of learned: drawn at random, one frozen "
        "set, by SNR (an oracle), by energy, of another recording, two seconds late, by the gain known afterwards (a "
        "ceiling)",
    )
    parser.add_argument(
        "--budget", type=float, metavar="B", help="mean activation wanted, 0 to 1 (default: as trained)"
    )
    parser.add_argument(
        "--width", type=float, metavar="U", help="one constant width, such as 0.25, of a network of widths"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, file by file, to FILE")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="processes (default: one for each core)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of random gates and bootstrap intervals (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Evaluate; 0, or 2 if a file could not be scored (the others were)."""
    from dsn_lite import evaluation
    from dsn_lite.evaluation.provenance import write_json
    from dsn_lite.zoo import load

    if args.json:
        pairs = Path(args.pairs)
        inputs = [pairs / "pairs.csv", *(path for kind in ("clean", "noisy") for path in (pairs / kind).rglob("*"))]
        Outputs(inputs, args.model).claim(args.json, "--json")
    results = evaluation.evaluate(
        evaluation.Identity() if args.model == "noisy" else load(args.model, kinds=("enhancer", "slim-demucs")),
        args.pairs,
        policy=args.policy,
        budget=args.budget,
        width=args.width,
        jobs=args.jobs,
        seed=args.seed,
    )
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
    groups = [*((f"{snr} dB", group) for snr, group in results["by_snr"].items()), ("all", results)]
    name_width = max(len(results["model"]), len("noisy"))
    lines = [
        f"{'SNR':>7} {'files':>5} {'':<{name_width}}" + "".join(f"{title:>8}" for _, title, _ in _COLUMNS)
    ]
    for label, group in groups:
        lines.append(_line(label, group["files"], "noisy", group["noisy"], name_width))
        if results["model"] != "noisy":
            lines.append(_line("", "", results["model"], group, name_width))
    if results["model"] != "noisy":
        lines.append(f"{results['model']}, 95 % intervals:")
        for key, title, digits in _COLUMNS:
            if results[f"{key}_ci"] is not None:
                low, high = results[f"{key}_ci"]
                lines.append(f"  {title:<8}{low:.{digits}f} to {high:.{digits}f}")
    for key, count in results["missing"].items():
        lines.append(
            f"{key} had no value on {count} of {results['files']} files; they are left out of its mean"
        )
    lines += _gate_lines(results)
    return "\n".join(lines)


def _line(label: str, files: int | str, name: str, group: dict, name_width: int) -> str:
    values = [
        " " * 8 if group.get(key) is None else f"{group[key]:>8.{digits}f}" for key, _, digits in _COLUMNS
    ]
    return f"{label:>7} {files:>5} {name:<{name_width}}" + "".join(values)


def _gate_lines(results: dict) -> list[str]:
    if not results["gates"]:
        return []
    lines = [f"policy {results['policy']}: {results['policy_description']}"]
    lines.append(
        f"{'gate':<22}{'rate':>7}  standard deviation over frames, within and over utterances; switches/s"
    )
    for name, gate in results["gates"].items():
        deviations = "".join(
            f"{gate[key]:>8.3f}" for key in ("std_frames", "std_within_utterance", "std_utterances")
        )
        lines.append(f"{name:<22}{gate['rate']:>7.3f}{deviations}{gate['switches_per_second']:>8.2f}")
    for key, title in (("activation_snr_db", "SNR"), ("activation_noisy_ovrl", "OVRL of the input")):
        if results["spearman"][key] is not None:
            lines.append(f"rank correlation of activation with {title}: {results['spearman'][key]:+.2f}")
    return lines
