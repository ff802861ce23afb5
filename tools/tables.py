"""Write what README.md shows of results/, and the page of the book with all of it, book/measured.md.

    python tools/tables.py           write both
    python tools/tables.py --check   exit with 1 where one of them shows something else
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from dsn_lite.evaluation import METRICS, paired_difference, read_runs
from dsn_lite.evaluation.rivals import POLICIES
from dsn_lite.zoo import DEFAULT

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
SETS = {"test": "144 recordings of one speaker", "streams": "20 streams of 30 s"}
NETWORKS = {
    "static": "everything always on", "static-narrow": "narrow static network", "static-only": "the small network alone",
    "dsn": "dsn, one target", "mgt-dsn": "mgt-dsn, target from OVRL", "benefit": "benefit, gain foretold",
}  # fmt: skip
WORDS = {
    "open": "all gates open", "closed": "all gates closed", "other": "gates of another recording",
    "shifted": "the same gates, two seconds late", "energy": "gates by energy", "known": "gain known afterwards, a ceiling",
}  # fmt: skip
"""Policies that the README shows, in its words."""
SHOWN = (("pesq", "PESQ", 3), ("estoi", "ESTOI", 3), ("si_sdr", "SI-SDR", 2), ("ovrl", "OVRL", 3))
PEERS = {"gtcrn_dns3": "GTCRN", "ulunas": "UL-UNAS", "fastenhancer_t": "FastEnhancer-T", "dtln": "DTLN", "nsnet2": "NSNet2",
         "rnnoise": "RNNoise"}  # fmt: skip
PEER_COLUMNS = {"pesq": "pesq_wb", "estoi": "estoi", "si_sdr": "si_sdr_db", "ovrl": "dnsmos_ovrl"}


def found(name: str) -> dict:
    """A JSON file of results/, empty where there is none."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


def runs(pairs: str) -> dict[str, dict]:
    """The evaluations on a set of pairs."""
    path = RESULTS / f"{pairs}.jsonl"
    return read_runs(path) if path.exists() else {}


def peers() -> dict[str, dict]:
    """What published networks score on the test set, in our names."""
    with (RESULTS / "peers.csv").open() as file:
        lines = {line["peer"]: line for line in csv.DictReader(file) if line["snr_db"] == "all"}
    return {
        label: {"mmacs_per_second": float(lines[name]["mmacs_per_second"] or "nan"),
                **{key: float(lines[name][column]) for key, column in PEER_COLUMNS.items()}}
        for name, label in PEERS.items()
    }  # fmt: skip


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def span(difference: float, interval: list[float], digits: int) -> str:
    """A difference with its interval, and whether it is decided."""
    low, high = interval
    verdict = "" if low > 0 or high < 0 else ", undecided"
    return f"{signed(difference, digits)} [{signed(low, digits)}, {signed(high, digits)}{verdict}]"


def cells(values: dict, margin: bool) -> list[str]:
    """Scores of a row; with half the width of their intervals where `margin`."""
    shown = []
    for key, _, digits in SHOWN:
        if values.get(key) is None:
            shown.append("–")
            continue
        text = f"{values[key]:.{digits}f}"
        if margin and f"{key}_ci" in values:
            low, high = values[f"{key}_ci"]
            text += f" ± {(high - low) / 2:.{digits}f}"
        shown.append(text.replace("-", "−"))
    return shown


def line(label: str, values: dict, *, margin: bool = False) -> str:
    """One row of a table of quality."""
    cost = values.get("mmacs_per_second")
    spent = "–" if not cost or cost != cost else f"{cost:.1f}"
    return f"| {label} | {spent} | " + " | ".join(cells(values, margin)) + " |"


HEAD = ["| | MMAC/s | PESQ | ESTOI | SI-SDR, dB | OVRL |", "|---|---:|---:|---:|---:|---:|"]


def quality(pairs: str, *, short: bool = False) -> str:
    """Everything on one set of pairs; `short` is what the README shows."""
    done = runs(pairs)
    if DEFAULT not in done:
        return "*not measured yet*"
    lines = [*HEAD, line("noisy", done[DEFAULT]["noisy"], margin=short)]
    for name, label in NETWORKS.items():
        if name in done and not (short and name in ("dsn", "mgt-dsn", "static-only")):
            lines.append(line(f"**{label}**" if name == DEFAULT else label, done[name], margin=short))
    endings = WORDS if short else (*POLICIES, *(n for n in done if "-budget-" in n))
    for ending in endings:
        name = ending if ending in done else f"{DEFAULT}-{ending}"
        if name in done and (ending in POLICIES or name.startswith(f"{DEFAULT}-budget")):
            label = WORDS.get(ending, ending.removeprefix(f"{DEFAULT}-").replace("-", " "))
            lines.append(line(label, done[name], margin=short))
    if pairs == "test":
        best = ("GTCRN", "UL-UNAS", "FastEnhancer-T")
        lines += [line(label, values) for label, values in peers().items() if not short or label in best]
    return "\n".join(lines)


def differences(rows: list[dict], others: list[dict]) -> str:
    """Paired differences `others` minus `rows` with their 95 % intervals, as a phrase."""
    parts = []
    for key, title, digits in SHOWN:
        if others[0][key] is None or rows[0][key] is None:  # DNSMOS was left out
            continue
        each = paired_difference(rows, others, key)
        parts.append(f"{title} {span(each['difference'], each['difference_ci'], digits)}")
    return "; ".join(parts)


def against(pairs: str) -> str:
    """Learned gates minus everything that they are compared with, paired over the recordings."""
    done, lines = runs(pairs), []
    if DEFAULT not in done:
        return "*not measured yet*"
    learned = done[DEFAULT]["per_file"]
    names = [f"{DEFAULT}-{policy}" for policy in POLICIES] + [name for name in NETWORKS if name != DEFAULT]
    for name in names:
        if name in done:
            lines.append(f"- minus {name.replace(f'{DEFAULT}-', '')}: {differences(done[name]['per_file'], learned)}.")
    if {"dsn", "mgt-dsn"} <= set(done):
        low = [[row for row in done[name]["per_file"] if row["snr_db"] <= 0] for name in ("dsn", "mgt-dsn")]
        lines.append(f"- mgt-dsn minus dsn at 0 dB and below: {differences(*low)}.")
    return "\n".join(lines)


def by_snr() -> str:
    """The default beside the noisy input, by SNR."""
    groups = runs("test").get(DEFAULT, {}).get("by_snr", {})
    lines = ["| SNR, dB | activation | MMAC/s | PESQ | change | SI-SDR, dB | change | OVRL | change |",
             "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for snr in sorted(groups, key=float):
        values = groups[snr]
        shown = [f"{values['activation']:.2f}", f"{values['mmacs_per_second']:.1f}"]
        for name, digits in (("pesq", 3), ("si_sdr", 2), ("ovrl", 2)):
            shown += [f"{values[name]:.{digits}f}".replace("-", "−"), signed(values[name] - values["noisy"][name], digits)]
        lines.append(f"| {float(snr):g} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def gates() -> str:
    """How often each gate is open and how much it moves."""
    lines = ["| gate | open, test | deviation over frames | over recordings | open, streams | deviation over frames |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    sets = [runs(pairs).get(DEFAULT, {}).get("gates", {}) for pairs in SETS]
    for name, values in sets[0].items():
        shown = [values["rate"], values["std_frames"], values["std_utterances"]]
        other = sets[1].get(name)
        shown += [other["rate"], other["std_frames"]] if other else []
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in shown) + " |")
    return "\n".join(lines)


def meaning() -> str:
    """How much is opened on which kind of frame."""
    lines = ["| | silence | noise burst | speech | speech in a burst | probe for speech, AUC | rank with SNR |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for pairs in SETS:
        values = found(f"meaning-{pairs}.json").get("models", {}).get(DEFAULT)
        if values:
            kinds = [f"{kind['activation']:.2f}" for kind in values["kinds"].values()]
            low, high = values["with_snr"]["ci"]
            rank = f"{signed(values['with_snr']['rank'], 2)} [{signed(low, 2)}, {signed(high, 2)}]"
            lines.append(f"| {pairs} | " + " | ".join(kinds) + f" | {values['probe_auc']:.2f} | {rank} |")
    return "\n".join([*lines, "", found("meaning-test.json").get("rule", "")])


def macs() -> str:
    """The three presets as the counter sees them."""
    lines = ["| preset | parameters | all open, MMAC/s | all closed | closed / open | policy |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, values in found("macs.json").items():
        lines.append(
            f"| {name} | {values['parameters']:,} | {values['open']:.1f} | {values['closed']:.1f} "
            f"| {values['closed'] / values['open']:.1%} | {values['policy'] / values['open']:.1%} |"
        )
    return "\n".join(lines)


def speed() -> str:
    """What a frame costs on the clock."""
    values = found("bench.json")
    titles = ("", "MMAC/s", "us a frame", "in a file", "real-time factor", "time / open", "in a file", "MACs / open")
    lines = [f"| {' | '.join(titles)} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    labels = {"open": "all open", "learned": "learned gates", "closed": "all closed", "static": "everything always on"}
    us, file, macs = (values[key] for key in ("us_per_frame", "file_us_per_frame", "mmacs_per_second"))
    for name, label in labels.items():
        shares = [each[name] / each["open"] for each in (us, file, macs)]
        lines.append(
            f"| {label} | {macs[name]:.1f} | {us[name]:.1f} | {file[name]:.1f} | {values['rtf'][name]:.4f} | "
            + " | ".join(f"{share:.3f}" for share in shares) + " |"
        )  # fmt: skip
    engines = values["engines"]
    others = ", ".join(f"{engines[name]['open']:.0f} us in {name}" for name in ("onnx", "torch") if name in engines)
    lines += [
        "",
        f"Medians on one thread of {values['provenance']['machine']['processor']}, {values['method']['seconds']:.0f} s of "
        f"noisy speech, hop by hop through Python, and in a file in pieces of 25. The same open frame takes {others}.",
    ]
    return "\n".join(lines)


def relatives() -> str:
    """Slimmable DEMUCS and the separator, beside their own constant widths."""
    demucs, split = found("slim-demucs.json"), found("separation.json")
    lines = ["| slim-demucs | MMAC/s | share of MACs | mean width | PESQ | STOI | SI-SDR, dB | OVRL |",
             "|---|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for title, name in (("width", "widths"), ("routed, target", "targets")):
        for key, values in demucs[name].items():
            shown = [f"{values['mmacs_per_second']:.1f}", f"{values['share_of_macs']:.2f}", f"{values['utilisation']:.2f}"]
            shown += [f"{values[metric]:.{digits}f}" for metric, digits in
                      (("pesq", 3), ("stoi", 3), ("si_sdr", 2), ("ovrl", 2))]  # fmt: skip
            lines.append(f"| {title} {key} | " + " | ".join(shown) + " |")
    lines.append("")
    for key, values in demucs["targets"].items():
        over = [f"{title} {span(values['over_static'][metric]['difference'], values['over_static'][metric]['ci'], digits)}"
                for metric, title, digits in SHOWN]  # fmt: skip
        lines.append(f"- Routed at {key} minus a constant width of the same MACs: {'; '.join(over)}.")
    lines += ["", "| separator, SI-SDR improvement in dB | MMAC/s | all | overlap 1 | overlap 0.5 | overlap 0.25 |",
              "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, values in split["policies"].items():
        groups = [values["groups"][group]["improvement"] for group in ("all", "overlap 1", "overlap 0.5", "overlap 0.25")]
        label = f"width {name}" if name[0].isdigit() else name.replace("-", ", budget ")
        shown = [f"{values['mmacs_per_second']:.1f}", *(f"{value:.2f}" for value in groups)]
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    half, talkers = split["policies"]["learned"]["groups"]["overlap 0.5"], split["policies"]["learned"]["by_talkers"]
    over = "; ".join(f"minus {label} {span(half[key], half[f'{key}_ci'], 2)} dB" for key, label in
                     (("over_full", "full width"), ("over_static", "constant widths at equal MACs")))  # fmt: skip
    widths = ", ".join(f"{name} {values['utilisation']:.2f}" for name, values in talkers.items())
    share = half["mmacs_per_second"] / split["width_mmacs"][-1]
    lines += [
        "",
        f"- Learned widths at 50 % overlap, paired: {over}, at {share:.0%} of the MACs of full width.",
        f"- Mean width by what a chunk holds: {widths}.",
    ]
    return "\n".join(lines)


PAGE: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("On the test set", "Fixed, 144 pairs at −5 to 25 dB; its speakers and noises are in no training file.",
     lambda: quality("test")),
    ("On streams", "Twenty streams of 30 s with turns and pauses; the noise is steady, swells, begins or changes.",
     lambda: quality("streams")),
    ("Learned gates against rivals, test set", "Paired over the recordings, 95 % intervals.", lambda: against("test")),
    ("Learned gates against rivals, streams", "The same on the streams.", lambda: against("streams")),
    ("By SNR", "On the test set.", by_snr),
    ("Do the gates move?", "A gate that never moves is pruning.", gates),
    ("What do the gates know?", "Activation by what a frame holds.", meaning),
    ("On the clock", "The compiled kernel; `dsn-lite bench` measures it on your machine.", speed),
    ("The presets", "`dsn-lite macs` prints every layer.", macs),
    ("The relatives", "Slimmable DEMUCS and the separator of two talkers.", relatives),
)  # fmt: skip


def page() -> str:
    """The page of the book with everything that was measured."""
    rules = "\n".join(f"- *{name}*: {text}." for name, text in POLICIES.items())
    parts = [
        "# Everything measured",
        "Written by `python tools/tables.py` from the files under `results/`, which hold every recording and the command "
        "behind each number. " + found("macs.json").get("base", {}).get("rule", ""),
        f"Metrics: {', '.join(METRICS)}. Gates of {DEFAULT} were set in these ways:\n\n{rules}",
        *(f"## {title}\n\n{text}\n\n{make()}" for title, text, make in PAGE),
    ]
    return "\n\n".join(parts) + "\n"


TABLES = {"quality": lambda: quality("test", short=True), "streams": lambda: quality("streams", short=True), "macs": macs}


def written(text: str) -> str:
    """`text` of the README with its tables made anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no place for the table {name}: <!-- {name} --> ... <!-- /{name} -->")
        text = pattern.sub(lambda place, make=make: f"{place[1]}{make()}\n{place[2]}", text)
    return text


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    files = {ROOT / "README.md": written, ROOT / "book" / "measured.md": lambda _: page()}
    before = {path: path.read_text() if path.exists() else "" for path in files}
    after = {path: make(before[path]) for path, make in files.items()}
    if parser.parse_args().check:
        return int(before != after)
    for path, text in after.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
