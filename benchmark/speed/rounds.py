"""Speed of a bundle beside its peers: each contestant in a process of its own, in turns.

A round starts a fresh process for every contestant: load, question, follow-up, end. The order turns
round at every other round, so what else the machine does falls on all of them. Before the rounds
each one answers about a small picture, which is thrown away: it fills the page cache.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ...runtime.errors import MissingExtraError, NativeError, OptionError
from ..contestants.task import Figures, Task
from .busy import busy_processes
from .machine import CpuClock, share_of, share_of_others
from .roofline import Roofline

OURS = "ours"
PEERS = ("mtmd", "transformers", "openvino")
OPENVINO_SCRIPT = Path(__file__).parents[1] / "contestants" / "openvino_contestant.py"
WARM_UP_PICTURE = (64, 64)
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Contest:
    """Runs by contestant, ours first; ``others`` is the share of all cores that other processes used in each.

    Where ``beside`` busy processes of ours computed meanwhile, ``taken`` is their share, which is none of the others'.
    ``left_out`` says in a line each why a peer is missing; one that failed on the way has its runs up
    to then and a line.
    """

    runs: dict[str, list[Figures]]
    others: dict[str, list[float | None]]
    left_out: dict[str, str] = field(default_factory=dict)
    beside: int = 0
    taken: dict[str, list[float | None]] = field(default_factory=dict)


def missing_peers(task: Task) -> dict[str, str]:
    """Why a peer can't take part, by its name; those that can are not in it."""
    missing = {}
    if not task.projector:
        missing["mtmd"] = "give --projector or --checkpoint"
    if not task.checkpoint:
        missing["transformers"] = "give --checkpoint"
    elif absent := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        missing["transformers"] = f"no package {absent[0]}; install 'llava-edge[export]'"
    if not task.openvino:
        missing["openvino"] = (
            "give --openvino, the folder that python -m llava_edge.benchmark.contestants.openvino_setup made"
        )
    elif not _openvino_python(task).is_file():
        missing["openvino"] = f"no environment at {_openvino_python(task)}"
    return missing


def choose_peers(task: Task, wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The peers to run, and a line on each that is left out.

    Without ``wanted`` they are those that are there. Raises :class:`OptionError` for an unknown one and
    :class:`MissingExtraError` for a wanted one that can't take part.
    """
    if unknown := [name for name in wanted if name not in PEERS]:
        raise OptionError(expected=f"peers among {', '.join(PEERS)}", got=unknown[0], fix="choose one of those")
    missing = missing_peers(task)
    for name in wanted:
        if name in missing:
            raise MissingExtraError(expected=f"what the peer {name} needs", got="it is not there", fix=missing[name])
    peers = [name for name in PEERS if name in (wanted or PEERS) and name not in missing]
    return peers, {} if wanted else missing


def compete(
    task: Task, peers: Sequence[str], *, rounds: int, beside: int = 0, on_step: OnStep = lambda _: None
) -> Contest:
    """Run our side and ``peers`` ``rounds`` times in turns, after a round that is thrown away.

    In each that counts, ``beside`` processes of ours compute as well.

    A peer that fails is left out from there on, with its last line as the reason; if our own side
    fails, :class:`NativeError` is raised.
    """
    names = [OURS, *peers]
    contest = Contest({name: [] for name in names}, {name: [] for name in names}, beside=beside)
    contest.taken.update({name: [] for name in names})
    with tempfile.TemporaryDirectory(prefix="llava-edge-speed-") as folder:
        small = Path(folder) / "small.png"
        Image.new("RGB", WARM_UP_PICTURE, "teal").save(small)
        warm_up = dataclasses.replace(task, image=str(small), tokens=2)
        for index in range(rounds + 1):
            for name in names[:: 1 if index % 2 == 0 else -1]:
                if name in contest.left_out:
                    continue
                on_step(f"round {index} of {rounds}: {name}" if index else f"warming up: {name}")
                _take_turn(contest, name, task if index else warm_up, Path(folder), keep=index > 0)
    return contest


def _take_turn(contest: Contest, name: str, task: Task, folder: Path, *, keep: bool) -> None:
    before = CpuClock.now()
    with busy_processes(contest.beside if keep else 0) as busy:
        try:
            figures = run_child(name, task, folder)
        except NativeError as error:
            if name == OURS:
                raise
            contest.left_out[name] = str(error)
            return
    if keep:
        contest.runs[name].append(figures)
        after = CpuClock.now()
        contest.others[name].append(share_of_others(before, after, figures.cpu + busy.cpu))
        contest.taken[name].append(share_of(before, after, busy.cpu))


def run_child(name: str, task: Task, folder: Path) -> Figures:
    """Run one contestant in a new process; its peak memory and CPU time are read when it has ended.

    Raises :class:`NativeError` with its last line where it fails, or the signal that killed it.
    """
    asked, result, log = (folder / f"{name}.{kind}" for kind in ("task", "result", "log"))
    task.write(asked)
    result.unlink(missing_ok=True)
    with log.open("w") as output:
        child = subprocess.Popen(
            [*contestant_command(name, task), name, str(asked), str(result)], stdout=output, stderr=output
        )
        status, cpu, peak = _wait(child)
    if status != 0 or not result.is_file():
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        ended = f"killed by signal {-status}" if status < 0 else f"status {status}"
        raise NativeError(
            expected=f"the contestant {name} to finish",
            got=f"{ended}: {said[-1][:300] if said else 'nothing said'}",
            fix="run it alone to see more",
        )
    figures = Figures(**json.loads(result.read_text(encoding="utf-8")))
    return dataclasses.replace(figures, cpu=cpu, peak_bytes=peak)


def contestant_command(name: str, task: Task) -> list[str]:
    """The command that runs a contestant, without its arguments."""
    if name == "openvino":
        return [str(_openvino_python(task)), str(OPENVINO_SCRIPT)]
    return [sys.executable, "-m", "llava_edge.benchmark.speed.child"]


def _openvino_python(task: Task) -> Path:
    return Path(task.openvino) / "venv" / "bin" / "python"


def _wait(child: subprocess.Popen[bytes]) -> tuple[int, float, int]:
    """(status, CPU seconds, peak resident bytes) of a child; it is killed where we are interrupted."""
    try:
        _, raw, used = os.wait4(child.pid, 0)
    except BaseException:
        child.kill()
        child.wait()
        raise
    child.returncode = os.waitstatus_to_exitcode(raw)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    return child.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * unit


def roofline_of_machine(threads: int) -> Roofline:
    """Measure the machine's best rates, in a process of its own. Raises :class:`NativeError`."""
    with tempfile.TemporaryDirectory(prefix="llava-edge-speed-") as folder:
        result = Path(folder) / "roofline.json"
        command = [sys.executable, "-m", "llava_edge.benchmark.speed.roofline"]
        done = subprocess.run(
            [*command, "--threads", str(threads), "--result", str(result)], capture_output=True, text=True
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["nothing said"]
            raise NativeError(expected="the machine's rates", got=said[-1][:300], fix="install 'llava-edge[benchmark]'")
        return Roofline(**json.loads(result.read_text(encoding="utf-8")))


def prepare_projector(task: Task, path: Path, *, on_step: OnStep = lambda _: None) -> Task:
    """``task`` with the projector that mtmd reads, written to ``path`` from the checkpoint where there is none.

    It takes torch and transformers, in a process of its own. Raises :class:`NativeError` where it fails.
    """
    if task.projector or not task.checkpoint:
        return task
    if not path.exists():
        on_step(f"writing {path} for mtmd")
        command = [sys.executable, "-m", "llava_edge.benchmark.contestants.mtmd_projector", task.checkpoint, str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["nothing said"]
            raise NativeError(expected="a projector for mtmd", got=said[-1][:300], fix="leave mtmd out, or mend that")
    return dataclasses.replace(task, projector=str(path))
