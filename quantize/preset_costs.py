"""Measured costs of the presets: written by ``python -m llava_edge.benchmark.recipes.presets --record``."""

from __future__ import annotations

COSTS: dict[str, dict[str, float]] = {
    "small": {"share": 0.276, "divergence": 9.0e-05, "decode": 0.46},
    "balanced": {"share": 0.305, "divergence": 3.5e-05, "decode": 0.62},
    "best": {"share": 0.522, "divergence": 1.2e-06, "decode": 0.64},
}
