"""Evaluate a separator on the fixed test mixtures and draw the result.

    python tools/separation.py PAIRS --model separator --json results/separation.json --picture results/separation.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from dsn_lite import zoo
from dsn_lite.audio.files import replacing
from dsn_lite.commands._files import Outputs
from dsn_lite.errors import InputError
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.plots import maps as figures
from dsn_lite.slimmable.separator.evaluate import draw_separation, evaluate_separation
from dsn_lite.slimmable.separator.mixtures import TALKING


def table(results: dict) -> str:
    """The means as lines of text."""
    policies, groups = results["policies"], list(results["policies"]["learned"]["groups"])
    lines = [f"{'':<22}" + "".join(f"{name:>14}" for name in policies)]
    lines.append(f"{'MMAC/s':<22}" + "".join(f"{policy['mmacs_per_second']:>14.1f}" for policy in policies.values()))
    for group in groups:
        values = [policy["groups"][group]["improvement"] for policy in policies.values()]
        lines.append(f"{group:<22}" + "".join(f"{value:>14.2f}" for value in values))
    for name in TALKING:
        used = [policy["by_talkers"].get(name, {}).get("utilisation", float("nan")) for policy in policies.values()]
        lines.append(f"{'width, ' + name:<22}" + "".join(f"{value:>14.3f}" for value in used))
    for key in ("over_full", "over_static", "over_shuffled"):
        for group in groups:
            found = policies["learned"]["groups"][group]
            low, high = found[f"{key}_ci"]
            lines.append(f"learned {key} {group:<22}{found[key]:+.2f} dB ({low:+.2f} to {high:+.2f})")
    return "\n".join(lines)


def main() -> int:
    """Evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="folder with clean/, noisy/ and pairs.csv")
    parser.add_argument("--model", default="separator")
    parser.add_argument("--each", type=int, default=30, help="mixtures of each overlap, clean and noisy (default 30)")
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.1, 0.25, 0.5, 0.75])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        outputs = Outputs([args.pairs / "pairs.csv"], args.model)
        for option, path in (("--json", args.json), ("--picture", args.picture)):
            if path:
                outputs.claim(path, option)
        if args.picture:
            figures.check_name(args.picture)
        network = zoo.load(args.model, kinds=("separator",))
        results = evaluate_separation(network, args.pairs, each=args.each, budgets=args.budgets)
    except InputError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    print(table(results))
    results = {**provenance(("torch", "numpy", "soundfile")), **results}
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    if args.picture:
        draw_separation(results, args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
