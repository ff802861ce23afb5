"""How good, at what cost, and is it luck: metrics, DNSMOS, pairs, rivals of equal cost, intervals."""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "scoring": (
        "COSTS METRICS POLICIES SNR_GROUPS Identity Pair Plan energy_threshold evaluate frame_levels "
        "frozen_pattern gate_shares mean_ci paired_difference pairs read_pair score snr_patterns "
        "spearman"
    ),
    "metrics": "pesq_wb si_sdr stoi",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
