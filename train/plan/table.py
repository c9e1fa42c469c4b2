"""The plan in words: a table for people, a dictionary for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from .plan import TrainingPlan

GIGA = 1e9


def training_dictionary(plan: TrainingPlan) -> dict[str, Any]:
    """The plan as JSON can hold it; memory in bytes."""
    hardware = plan.recipe.hardware
    stages = []
    for stage in plan.stages:
        memory = {**dataclasses.asdict(stage.memory), "total": stage.memory.total}
        entry = {**dataclasses.asdict(stage), "memory": memory}
        stages.append({**entry, "fits": stage.memory.total <= hardware.memory_gb * GIGA})
    return {
        "name": plan.recipe.name,
        "device": hardware.device,
        "world_size": plan.world_size,
        "sharding": plan.sharding,
        "parameters": {**plan.counts.parts, "total": sum(plan.counts.parts.values())},
        "stages": stages,
        "flops": sum(stage.flops for stage in plan.stages),
        "utilisation": hardware.utilisation,
        "hours": plan.hours,
        "reported_hours": hardware.hours or None,
        "reported_world_size": hardware.world_size if hardware.hours else None,
    }


def training_table(plan: TrainingPlan) -> str:
    """The plan as text, one paragraph a stage."""
    hardware = plan.recipe.hardware
    lines = [
        f"{plan.recipe.name}: {plan.world_size} x {hardware.device}, sharding {plan.sharding},"
        f" {plan.recipe.run.precision}, seed {plan.recipe.seed}",
        "",
        f"{'part':<12}{'parameters':>18}{'x 10^6':>12}{'x 2^20':>12}",
    ]
    for part, count in [*plan.counts.parts.items(), ("total", sum(plan.counts.parts.values()))]:
        lines.append(f"{part:<12}{count:>18,}{count / 1e6:>12,.2f}{count / 2**20:>12,.2f}")
    for stage in plan.stages:
        lines += ["", *_stage_lines(plan, stage)]
    reported = ""
    if hardware.hours:
        reported = f"; reported {hardware.hours:g} h on {hardware.world_size}"
    lines += [
        "",
        f"all stages {plan.hours:.1f} h at {hardware.utilisation:.0%} of {hardware.peak_tflops:g} TFLOP/s{reported}",
    ]
    return "\n".join(lines)


def _stage_lines(plan: TrainingPlan, stage: Any) -> list[str]:
    recipe = next(known for known in plan.recipe.stages if known.name == stage.name)
    rates = ", ".join(f"{part} {rate:g}" for part, rate in recipe.rates.items())
    trained = ", ".join(f"{part} {count / 1e6:,.2f}M" for part, count in stage.trained.items())
    memory = stage.memory
    parts = ", ".join(
        f"{name} {getattr(memory, name) / GIGA:.1f}" for name in (field.name for field in dataclasses.fields(memory))
    )
    fits = memory.total <= plan.recipe.hardware.memory_gb * GIGA
    return [
        f"stage {stage.name}",
        f"  trains      {trained}",
        f"  rates       {rates}; cosine, warm-up {stage.warm_up_steps} steps",
        f"  samples     {stage.samples:,} in {stage.steps:,} steps of {recipe.batch}"
        f" ({recipe.device_batch} a device, accumulation {stage.accumulation})",
        f"  tokens      {stage.tokens_a_step:,} a step, at {stage.mean_tokens:,} positions a sample (assumed)",
        f"  memory      {memory.total / GIGA:.1f} GB a device ({parts}): {'fits' if fits else 'does not fit'}"
        f" {plan.recipe.hardware.memory_gb:g}",
        f"  work        {stage.flops:.2e} FLOP, {stage.hours:.1f} h",
    ]
