"""``benchmark speed --beside N``: the busy processes compute, are told apart from others, and never stay behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.contestants.task import Task
from llava_edge.benchmark.speed import rounds
from llava_edge.benchmark.speed.busy import Busy, busy_processes
from llava_edge.benchmark.speed.machine import CpuClock, describe_machine
from llava_edge.benchmark.speed.report import _beside_lines, as_values, markdown
from llava_edge.benchmark.speed.rounds import Contest, compete
from llava_edge.runtime.errors import NativeError
from PIL import Image
from support.command_line import run_here

FAKE = 'import sys; open(sys.argv[3], \'w\').write(\'{"load": 0, "first_token": 1, "second": 1}\')'


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started."""
    processes: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*some: Any, **named: Any) -> Any:
        processes.append(real(*some, **named))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


def test_busy_processes_compute_and_end_with_the_block(started: list[subprocess.Popen[bytes]]) -> None:
    with busy_processes(2) as busy:
        time.sleep(0.2)
        assert [process.poll() for process in started] == [None, None]
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    assert busy.cpu > 0.05
    with busy_processes(0) as none:
        pass
    assert (len(started), none.cpu) == (2, 0.0)


def test_they_end_where_the_block_is_left_by_an_error(started: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(KeyboardInterrupt), busy_processes(1):
        raise KeyboardInterrupt
    assert started[0].returncode == -signal.SIGKILL


def test_one_that_ends_early_is_an_error(started: list[subprocess.Popen[bytes]]) -> None:
    def run() -> None:
        with busy_processes(1):
            started[0].kill()
            started[0].wait(timeout=30)

    with pytest.raises(NativeError, match="busy processes"):
        run()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_they_end_with_a_parent_that_is_killed() -> None:
    code = (
        "import time\nfrom llava_edge.benchmark.speed import busy\nstarted = []\nreal = busy.subprocess.Popen\n"
        "busy.subprocess.Popen = lambda *some, **named: (started.append(real(*some, **named)), started[-1])[1]\n"
        "with busy.busy_processes(1):\n    print(started[0].pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 20
    while (state := _state(orphan)) not in ("gone", "Z") and time.monotonic() < until:
        time.sleep(0.02)
    assert state in ("gone", "Z")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy processes that took 3 of the 10 seconds that the cores had, one other took 1, a contestant almost none."""
    clocks = iter(CpuClock(4 * at, 10 * at) for at in range(99))

    @contextmanager
    def busy_processes(count: int) -> Iterator[Busy]:
        yield (busy := Busy())
        busy.cpu = 3.0 * count

    monkeypatch.setattr(rounds, "busy_processes", busy_processes)
    monkeypatch.setattr(rounds.CpuClock, "now", lambda: next(clocks))
    monkeypatch.setattr(rounds, "contestant_command", lambda name, task: [sys.executable, "-c", FAKE])


@pytest.mark.usefixtures("taking")
@pytest.mark.parametrize(("count", "others"), [(0, 0.4), (1, 0.1)])
def test_our_own_busy_processes_are_no_disturbance(count: int, others: float) -> None:
    contest = compete(Task("picture.png", "bundle", 2), ["mtmd"], rounds=1, beside=count)
    values = as_values(
        contest, Task("picture.png", "bundle", 2), describe_machine(), size=(30, 20), reached={}, roofline=None
    )
    assert values["beside"] == count
    for one in values["contestants"]:
        assert one["others"] == [pytest.approx(others, abs=0.05)]
        assert one["taken"] == [pytest.approx(0.3 * count)]
    said = "**beside 1 busy process**, which took of the cores meanwhile: ours 30%, mtmd 30%."
    assert (said in markdown(values)) is (count == 1)


def test_a_report_of_many_without_runs() -> None:
    contest = Contest({"ours": []}, {"ours": []}, beside=3)
    values = as_values(contest, Task("", "", 1), describe_machine(), size=(1, 1), reached={}, roofline=None)
    assert _beside_lines(values) == ["Every contestant ran **beside 3 busy processes**.", ""]


@pytest.mark.usefixtures("taking")
def test_the_command_says_it(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    file = tmp_path / "speed.json"
    command = ["benchmark", "speed", "--beside", "2", "--rounds", "2", "--no-roofline", "--json", str(file)]
    status, out, err = run_here(*command, "--image", str(tmp_path / "picture.png"))
    assert status == 0, err
    assert "**beside 2 busy processes**, which took of the cores meanwhile: ours 60%." in out
    assert "Disturbed" not in out
    values = json.loads(file.read_text())
    assert (values["beside"], values["contestants"][0]["taken"]) == (2, [0.6, 0.6])
