"""How good, at what cost, and is it luck: metrics, DNSMOS, pairs, rivals of equal cost, intervals."""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "folders": "Pair pairs read_pair",
    "benefit": "Terms gain",
    "metrics": "pesq_wb si_sdr stoi",
    "rivals": (
        "POLICIES WIDTH_POLICIES Assignment best_set drawn_gates energy_threshold fixed_sets frame_levels gate_shares "
        "opening_gain snr_opened"
    ),
    "runs": "read_runs write_run",
    "scoring": "Identity evaluate score",
    "statistics": "COSTS METRICS SNR_GROUPS mean_ci paired_difference spearman verdict",
}
__getattr__, __dir__ = face(globals(), _HOMES)
