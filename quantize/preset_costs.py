"""Measured costs of the presets: written by ``python -m llava_edge.benchmark.presets --record``."""

from __future__ import annotations

COSTS: dict[str, dict[str, float]] = {
    "small": {"share": 0.281, "divergence": 1.4e-03, "decode": 0.63},
    "balanced": {"share": 0.320, "divergence": 2.4e-04, "decode": 0.64},
    "best": {"share": 0.527, "divergence": 9.2e-06, "decode": 0.86},
}
