"""Measured costs of the presets: written by ``python -m llava_edge.benchmark.presets --record``."""

from __future__ import annotations

COSTS: dict[str, dict[str, float]] = {}
