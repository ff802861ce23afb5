"""Write the tables of README.md from the files under results/, between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    python tools/tables.py           write them
    python tools/tables.py --check   exit with 1 where README.md shows something else
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from pathlib import Path

from dsn_lite.evaluation import paired_difference

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RUNS = {
    "static": "static network",
    "static-narrow": "narrow static network",
    "static-only": "smallest static network, the static half alone",
    "dsn": "dsn, learned gates, one target",
    "mgt-dsn": "**mgt-dsn, learned gates**",
    "mgt-dsn-open": "mgt-dsn, all open",
    "mgt-dsn-closed": "mgt-dsn, all closed",
    "mgt-dsn-random": "mgt-dsn, random gates",
    "mgt-dsn-frozen": "mgt-dsn, frozen pattern",
    "mgt-dsn-snr": "mgt-dsn, SNR oracle",
    "mgt-dsn-energy": "mgt-dsn, energy threshold",
}
SEEDS = (1, 2)
SHOWN = (("pesq", "PESQ", 3), ("estoi", "ESTOI", 3), ("si_sdr", "SI-SDR", 2), ("ovrl", "OVRL", 3))
"""Measures of the differences: name, title and digits."""
PEERS = {
    "gtcrn_dns3": "GTCRN", "ulunas": "UL-UNAS", "fastenhancer_t": "FastEnhancer-T", "dtln": "DTLN", "nsnet2": "NSNet2",
    "rnnoise": "RNNoise", "webrtc_ns2": "WebRTC",
}  # fmt: skip


def result(name: str) -> dict:
    """The JSON that `dsn-lite evaluate` wrote for a run."""
    return json.loads((RESULTS / f"test-{name}.json").read_text())


def row(label: str, values: dict) -> str:
    """One line of the quality table."""

    def show(name: str, digits: int) -> str:
        return f"{values[name]:.{digits}f}" if values.get(name) is not None else "–"

    cells = [show("mmacs_per_second", 1), show("activation", 2), show("pesq", 3), show("estoi", 3), show("si_sdr", 2),
             show("sig", 2), show("bak", 2), show("ovrl", 2)]  # fmt: skip
    return f"| {label} | " + " | ".join(cells) + " |"


def quality() -> str:
    """Everything on the fixed test set, and the peers on the same pairs."""
    lines = [
        "| | MMAC/s | activation | PESQ | ESTOI | SI-SDR, dB | SIG | BAK | OVRL |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        row("noisy", {**result("mgt-dsn")["noisy"], "mmacs_per_second": None, "activation": None}),
    ]
    lines += [row(label, result(name)) for name, label in RUNS.items()]
    with (RESULTS / "peers.csv").open() as file:
        peers = {line["peer"]: line for line in csv.DictReader(file) if line["snr_db"] == "all"}
    for name, label in PEERS.items():
        given = peers[name]
        values = {
            "mmacs_per_second": given["mmacs_per_second"], "pesq": given["pesq_wb"], "estoi": given["estoi"],
            "si_sdr": given["si_sdr_db"], "sig": given["dnsmos_sig"], "bak": given["dnsmos_bak"],
            "ovrl": given["dnsmos_ovrl"],
        }  # fmt: skip
        lines.append(row(label, {name: float(value) if value else None for name, value in values.items()}))
    return "\n".join(lines)


def by_snr() -> str:
    """mgt-dsn beside the noisy input, by SNR."""
    lines = [
        "| SNR, dB | activation | MMAC/s | PESQ | change | SI-SDR, dB | change | OVRL | change |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    groups = result("mgt-dsn")["by_snr"]
    for snr in sorted(groups, key=float):
        values = groups[snr]
        cells = [f"{values['activation']:.2f}", f"{values['mmacs_per_second']:.1f}"]
        for name, digits in (("pesq", 3), ("si_sdr", 2), ("ovrl", 2)):
            change = values[name] - values["noisy"][name]
            cells += [f"{values[name]:.{digits}f}", signed(change, digits)]
        lines.append(f"| {float(snr):g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gates() -> str:
    """How often each gate is open and how much it moves."""
    lines = ["| gate | open | deviation over frames | deviation over utterances |", "|---|---:|---:|---:|"]
    for name, values in result("mgt-dsn")["gates"].items():
        lines.append(
            f"| {name} | {values['rate']:.2f} | {values['std_frames']:.2f} | {values['std_utterances']:.2f} |"
        )
    return "\n".join(lines)


def macs() -> str:
    """The three presets as the counter sees them."""
    counted = json.loads((RESULTS / "macs.json").read_text())
    lines = [
        "| preset | parameters | all open, MMAC/s | all closed | closed / open | policy |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in ("tiny", "base", "paper"):
        values = counted[name]
        lines.append(
            f"| {name} | {values['parameters']:,} | {values['open']:.1f} | {values['closed']:.1f} "
            f"| {values['closed'] / values['open']:.1%} | {values['policy'] / values['open']:.1%} |"
        )
    return "\n".join(lines)


def findings() -> str:
    """What the tables say, in sentences: gain over the noisy input, and learned gates against their equals in cost."""
    learned = result("mgt-dsn")
    noisy, full = learned["noisy"], result("mgt-dsn-open")["mmacs_per_second"]
    share = learned["mmacs_per_second"] / full
    rank = learned["spearman"]
    lines = [
        f"- Over the noisy input: PESQ {signed(learned['pesq'] - noisy['pesq'], 3)}, SI-SDR "
        f"{signed(learned['si_sdr'] - noisy['si_sdr'], 2)} dB, OVRL {signed(learned['ovrl'] - noisy['ovrl'], 2)}, at "
        f"{share:.0%} of the MACs of everything open.",
        f"- Activation falls as the input gets better: rank correlation {signed(rank['activation_snr_db'], 2)} with the "
        f"SNR, {signed(rank['activation_noisy_ovrl'], 2)} with the OVRL of the input.",
    ]
    for name, label in (
        ("mgt-dsn-open", "everything open"), ("mgt-dsn-closed", "everything closed"), ("mgt-dsn-random", "random gates"),
        ("mgt-dsn-frozen", "the frozen pattern"), ("mgt-dsn-snr", "the SNR oracle"),
        ("mgt-dsn-energy", "the energy threshold"), ("static", "the static network"),
        ("static-narrow", "the narrow static network"), ("dsn", "those of dsn"),
    ):  # fmt: skip
        found = differences(result(name)["per_file"], learned["per_file"])
        lines.append(f"- Learned gates minus {label}, paired over files, 95 % interval: {found}.")
    for name, label in (("dsn", "those of dsn"), ("static-narrow", "the narrow static network"),
                        ("mgt-dsn-random", "random gates"), ("mgt-dsn-frozen", "the frozen pattern")):  # fmt: skip
        rows = ([row for row in given["per_file"] if row["snr_db"] <= 0] for given in (result(name), learned))
        lines.append(f"- At 0 dB and below, learned gates minus {label}: {differences(*rows)}.")
    for mine, rival, label in (("open", "static", "open minus the static network"),
                               ("closed", "static-only", "closed minus the smallest static network")):  # fmt: skip
        found = differences(result(rival)["per_file"], result(f"mgt-dsn-{mine}")["per_file"])
        lines.append(f"- All {label}: {found}.")
    return "\n".join(lines)


def guidance() -> str:
    """Policies trained from nothing on the frozen network of mgt-dsn, the same seeds with guidance and without."""
    lines = [
        "| target | seed | activation | −5 dB | 25 dB | correlation with SNR | with OVRL | PESQ | SI-SDR, dB | OVRL |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    found: dict[str, list[dict]] = {"guided": [], "one-target": []}
    for name, runs in found.items():
        for seed in SEEDS:
            values = result(f"gates-{name}-{seed}")
            runs.append(values)
            by_snr, rank = values["by_snr"], values["spearman"]
            cells = [f"{values['activation']:.2f}", *(f"{by_snr[snr]['activation']:.2f}" for snr in ("-5", "25"))]
            cells += [signed(rank[key], 2) for key in ("activation_snr_db", "activation_noisy_ovrl")]
            cells += [f"{values['pesq']:.3f}", f"{values['si_sdr']:.2f}", f"{values['ovrl']:.3f}"]
            lines.append(f"| {name.replace('-', ' ')} | {seed} | " + " | ".join(cells) + " |")
    lines.append("")
    for label, highest in (("all recordings", 99), ("0 dB and below", 0)):
        rows = [mean_rows(runs, highest) for runs in (found["one-target"], found["guided"])]
        lines.append(f"- Guided minus one target, means over the seeds, {label}: {differences(*rows)}.")
    return "\n".join(lines)


def mean_rows(runs: list[dict], highest: float) -> list[dict]:
    """Rows by file up to an SNR, each score the mean over the runs."""
    rows = zip(*(values["per_file"] for values in runs), strict=True)
    scores = ("pesq", "estoi", "si_sdr", "ovrl")
    return [
        {"file": same[0]["file"], **{key: sum(row[key] for row in same) / len(same) for key in scores}}
        for same in rows if same[0]["snr_db"] <= highest
    ]  # fmt: skip


def differences(rows: list[dict], others: list[dict]) -> str:
    """Paired differences `others` minus `rows` with their 95 % intervals, as a phrase."""
    parts = []
    for key, title, digits in SHOWN:
        found = paired_difference(rows, others, key)
        parts.append(f"{title} {span(found['difference'], found['difference_ci'], digits)}")
    return "; ".join(parts)


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def relatives() -> str:
    """Slimmable DEMUCS and the separator, beside their own constant widths."""
    demucs, split = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("slim-demucs", "separation"))
    lines = [
        "| slim-demucs | MMAC/s | share of MACs | mean width | PESQ | STOI | SI-SDR, dB | OVRL |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, name in (("width", "widths"), ("routed, target", "targets")):
        for key, values in demucs[name].items():
            cells = [f"{values['mmacs_per_second']:.1f}", f"{values['share_of_macs']:.2f}", f"{values['utilisation']:.2f}"]
            cells += [f"{values[metric]:.{digits}f}" for metric, digits in
                      (("pesq", 3), ("stoi", 3), ("si_sdr", 2), ("ovrl", 2))]  # fmt: skip
            lines.append(f"| {title} {key} | " + " | ".join(cells) + " |")
    lines.append("")
    for key, values in demucs["targets"].items():
        found = [
            f"{title} {span(values['over_static'][metric]['difference'], values['over_static'][metric]['ci'], digits)}"
            for metric, title, digits in SHOWN
        ]
        lines.append(f"- Routed at {key} minus a constant width of the same MACs: {'; '.join(found)}.")
    lines += [
        "",
        "| separator, SI-SDR improvement in dB | MMAC/s | all | overlap 1 | overlap 0.5 | overlap 0.25 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, values in split["policies"].items():
        groups = [values["groups"][group]["improvement"] for group in ("all", "overlap 1", "overlap 0.5", "overlap 0.25")]
        label = f"width {name}" if name[0].isdigit() else name.replace("-", ", budget ")
        cells = [f"{values['mmacs_per_second']:.1f}", *(f"{value:.2f}" for value in groups)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    half, talkers = split["policies"]["learned"]["groups"]["overlap 0.5"], split["policies"]["learned"]["by_talkers"]
    lines += [
        "",
        "- Learned widths at 50 % overlap, paired: " + "; ".join(
            f"minus {label} {span(half[key], half[f'{key}_ci'], 2)} dB" for key, label in (
                ("over_full", "full width"), ("over_static", "constant widths at equal MACs"),
            )
        ) + f", at {half['mmacs_per_second'] / split['width_mmacs'][-1]:.0%} of the MACs of full width.",
        "- Mean width by what a chunk holds: " + ", ".join(
            f"{name} {values['utilisation']:.2f}" for name, values in talkers.items()
        ) + ".",
    ]  # fmt: skip
    return "\n".join(lines)


def span(difference: float, interval: list[float], digits: int) -> str:
    """A difference with its interval, and whether it is decided."""
    low, high = interval
    verdict = "" if low > 0 or high < 0 else " (undecided)"
    return f"{signed(difference, digits)} [{signed(low, digits)}, {signed(high, digits)}]{verdict}"


def throughput() -> str:
    """How fast training is, on the machine that trained the shipped weights."""
    values = json.loads((RESULTS / "throughput.json").read_text())
    static, gated = values["static"], values["gated"]
    return (
        f"On one thread, with the mixtures made by a second process, `base` sees {static['audio_seconds_per_second']:.0f} "
        f"seconds of audio a second as a static network ({static['steps_per_second']:.2f} steps of 8 times 4 s) and "
        f"{gated['audio_seconds_per_second']:.0f} with gates."
    )


def speed() -> str:
    """What a frame costs on the clock."""
    values = json.loads((RESULTS / "bench.json").read_text())
    time, ratio = values["us_per_frame"], values["ratio"]
    lines = ["| | MMAC/s | us a frame | real-time factor | time / open | MACs / open |", "|---|---:|---:|---:|---:|---:|"]
    labels = {"open": "all open", "learned": "learned gates", "closed": "all closed", "static": "static network"}
    for name, label in labels.items():
        share = ratio.get(name, {}) if name != "open" else {"time": 1.0, "macs": 1.0}
        shown = [f"{share[key]:.3f}" if key in share else "–" for key in ("time", "macs")]
        lines.append(
            f"| {label} | {values['mmacs_per_second'][name]:.1f} | {time[name]:.1f} | {values['rtf'][name]:.4f} | "
            + " | ".join(shown) + " |"
        )  # fmt: skip
    engines = values["engines"]
    paper, test = (json.loads((RESULTS / f"bench-{name}.json").read_text()) for name in ("paper", "test"))
    real, wide = test["ratio"]["learned"], paper["ratio"]["closed"]
    lines += [
        "",
        f"Medians on one thread of {values['provenance']['machine']['processor']}, {values['method']['seconds']:.0f} s of "
        f"noisy speech; the learned gates' time includes the policy's {values['policy_us']:.1f} us. The same open "
        f"frame takes {engines['onnx']['open']:.0f} us in ONNX Runtime and {engines['torch']['open']:.0f} us in PyTorch.",
        "",
        f"These clips have much noise, and the policy opens {values['activation']:.0%} of what it can. "
        f"On the recordings of the test set it opens {test['activation']:.0%}, and the learned gates take "
        f"{real['time']:.3f} of the open time "
        f"for {real['macs']:.3f} of the MACs (`results/bench-test.json`). An open frame of the size `paper` takes "
        f"{paper['us_per_frame']['open']:.0f} us, real-time factor {paper['rtf']['open']:.4f}, and a closed one "
        f"{wide['time']:.3f} of it for {wide['macs']:.3f} of the MACs.",
    ]
    return "\n".join(lines)


TABLES = {
    "speed": speed, "relatives": relatives, "guidance": guidance,
    "findings": findings, "throughput": throughput, "quality": quality, "by_snr": by_snr, "gates": gates, "macs": macs,
}  # fmt: skip


def written(text: str) -> str:
    """`text` with its tables made anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no place for the table {name}: <!-- {name} --> ... <!-- /{name} -->")
        text = pattern.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    return text


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = written(before)
    if parser.parse_args().check:
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
