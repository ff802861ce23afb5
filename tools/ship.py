"""Put the weights of a finished run into the package, with a card that says where they come from and what they score.

    python tools/ship.py RUN benefit --data manifest.csv   weights, card, graph of the default into dsn_lite/weights/
    python tools/ship.py --figures                         figures of results/test.jsonl into the cards
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from dsn_lite.data.manifest import read_manifest
from dsn_lite.engine import onnx
from dsn_lite.evaluation import read_runs
from dsn_lite.evaluation.provenance import commit
from dsn_lite.network.cut import small_alone, without_gates
from dsn_lite.network.macs import count
from dsn_lite.network.weights import WEIGHTS, save
from dsn_lite.zoo import DEFAULT, load

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
SOURCES = {
    "librispeech": "LibriSpeech (Panayotov et al., 2015)",
    "picovoice": "Picovoice speech-to-intent benchmark",
    "speechocean762": "speechocean762 (Zhang et al., 2021)",
    "kathleen": "rhasspy voice kathleen", "kerstin": "rhasspy voice kerstin",
    "flemishguy": "rhasspy voice flemishguy", "nathalie": "rhasspy voice nathalie",
    "ogunlao": "Yoruba speech project (ogunlao)",
    "vctk": "VCTK (Yamagishi et al., 2019)",
    "esc50": "ESC-50 (Piczak, 2015), its CC0 and CC BY clips from freesound.org",
    "blanket": "ambience loops of the program Blanket",
    "speechcommands": "Speech Commands, background noise (Warden, 2018)",
    "openair": "OpenAIR impulse responses (University of York)",
}  # fmt: skip
FIGURES = ("files", "pesq", "stoi", "estoi", "si_sdr", "sig", "bak", "ovrl", "mmacs_per_second", "activation")


def sources(manifest: Path) -> list[dict]:
    """What the network was trained on: source, kind, hours and licence."""
    hours: dict[tuple[str, str, str], float] = {}
    for entry in read_manifest(manifest):
        if entry.split == "train":
            key = (entry.kind, entry.source, entry.licence)
            hours[key] = hours.get(key, 0.0) + (entry.seconds or 0.0) / 3600
    return [
        {"kind": kind, "source": SOURCES.get(source, source), "hours": round(value, 2), "licence": licence}
        for (kind, source, licence), value in sorted(hours.items(), reverse=True)
    ]


def ship(run: Path, name: str, manifest: Path, note: str, cut: str | None) -> None:
    """Copy the weights, complete the card, keep the log under results/."""
    network = load(run / "model.safetensors")
    if cut:
        network = {"open": without_gates, "small": small_alone}[cut](network)
    counted = count(network)
    training = network.card["training"]
    if training["start_from"]:  # no folders of this machine
        training["start_from"] = "/".join(Path(training["start_from"]).parts[-2:])
    card = {
        **network.card, "name": name, "licence": "MIT", "note": note,
        "data": sources(manifest),
        "counted": {"open": counted.open, "closed": counted.closed, "parameters": counted.parameters},
        "commit": commit(),
    }  # fmt: skip
    save(network, WEIGHTS / f"{name}.safetensors", card)
    if name == DEFAULT:  # the graph of the others is one `dsn-lite export` away
        onnx.save(load(WEIGHTS / f"{name}.safetensors"), WEIGHTS / f"{name}.onnx")
    shutil.copyfile(run / "log.jsonl", RESULTS / f"training-{name}.jsonl")


def add_figures() -> None:
    """Write the figures of the test set into every card that has a file of results."""
    runs = read_runs(RESULTS / "test.jsonl")
    for path in sorted(WEIGHTS.glob("*.json")):
        if path.stem not in runs:
            continue
        card, values = json.loads(path.read_text()), runs[path.stem]
        card["metrics"] = {
            "set": "the fixed test set, 144 pairs at -5 to 25 dB", "from": "results/test.jsonl",
            **{name: values[name] for name in FIGURES}, "noisy": {name: values["noisy"][name] for name in FIGURES[1:8]},
        }  # fmt: skip
        path.write_text(json.dumps(card, indent=1) + "\n")


def main() -> int:
    """Carry out one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--data", type=Path, metavar="MANIFEST")
    parser.add_argument("--note", default="", help="one sentence for the card")
    parser.add_argument("--cut", choices=("open", "small"), help="without gates: all always on, or the small network")
    parser.add_argument("--figures", action="store_true")
    args = parser.parse_args()
    if args.figures:
        add_figures()
    elif args.run and args.name and args.data:
        ship(args.run, args.name, args.data, args.note, args.cut)
    else:
        parser.error("give RUN NAME --data MANIFEST, or --figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
