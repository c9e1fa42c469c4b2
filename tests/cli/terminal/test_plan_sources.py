"""Devices as people write them; what is none is one line, also under ``python -O``."""

from __future__ import annotations

import subprocess
import sys

import pytest
from llava_edge.cli.terminal.plan_sources import parse_device
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.planning.placement import Device, DeviceKind


@pytest.mark.parametrize(
    ("text", "memory", "bandwidth", "flops"),
    [
        ("a=24G", 24 * 2**30, 0, 0),
        (" a = 1.5 tib ", int(1.5 * 2**40), 0, 0),
        ("a=512MB@60", 2**29, 60e9, 0),
        ("a=24G@1008.5,165", 24 * 2**30, 1008.5e9, 165e12),
        ("a=24G@.5,5.", 24 * 2**30, 0.5e9, 5e12),
    ],
)
def test_devices(text: str, memory: int, bandwidth: float, flops: float) -> None:
    assert parse_device(text, "gpu") == Device("a", "gpu", memory, bandwidth, flops, endpoint="")


WRONG = ("", "a", "a=", "a=24", "a=G", "a=2.G", "a=24G@", "a=24G@1.2.3", "a=24G@1,", "a=24G@1,.", "=24G", "a=24K")


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_device(text: str) -> None:
    with pytest.raises(OptionError, match="a=24G@1008"):
        parse_device(text, "gpu")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("a=99999999999999T", "gpu", "memory above 0 for a, and below 1024T; got a=99999999999999T"),
        ("host=2048T", "cpu", "memory above 0 for host, and below 1024T; got 2048T"),
        ("a=0.0000001M", "gpu", "memory above 0 for a"),
        ("a=1G@" + "9" * 400, "gpu", "rates that a machine can have for a"),
        ("a=1G@1," + "9" * 400, "gpu", "rates that a machine can have for a"),
        ("foo=24G", "rpc", "a worker as HOST:PORT .*; got 'foo'"),
        ("foo:99999=24G", "rpc", "a worker as HOST:PORT .*; got 'foo:99999'"),
        ("foo:0=24G", "rpc", "a worker as HOST:PORT"),
        (":50052=24G", "rpc", "a worker as HOST:PORT"),
    ],
)
def test_devices_that_can_not_be(text: str, kind: DeviceKind, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_device(text, kind)


def test_a_worker_is_what_load_options_take() -> None:
    device = parse_device("10.0.0.2:50052=24G", "rpc")
    assert LoadOptions(workers=(device.endpoint,)).workers == ("10.0.0.2:50052",)
    assert parse_device("10.0.0.2:50052/1=24G", "rpc").endpoint == "10.0.0.2:50052"


def test_without_asserts() -> None:
    code = (
        "import sys\nfrom llava_edge.cli.terminal.plan_sources import parse_device\n"
        "from llava_edge.runtime.errors import OptionError\n"
        "for text in sys.argv[1:]:\n    try: parse_device(text, 'gpu')\n    except OptionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code, *WRONG], capture_output=True, text=True)
    assert done.stdout.split() == ["refused"] * len(WRONG), done.stderr
