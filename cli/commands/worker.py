"""``llava-edge worker``: lend this machine's devices to models loaded elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from ..terminal import options as arguments


def worker(
    host: Annotated[str, typer.Option("--host", help="Address to listen at; outside ones need --trust-network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 50052,
    threads: arguments.ThreadsOption = 0,
    trust_network: Annotated[
        bool, typer.Option("--trust-network", help="Let anybody who reaches HOST use this machine: RPC asks nobody.")
    ] = False,
) -> None:
    """Offer this machine's devices through llama.cpp's RPC backend; ask and chat use them with --worker.

    RPC has no password and no encryption. Keep it on 127.0.0.1 and reach it through a tunnel:
    ssh -N -L 50052:127.0.0.1:50052 THAT-MACHINE
    """
    from ...runtime.options import LoadOptions
    from ...runtime.processes.worker import serve
    from ..terminal.progress import note

    LoadOptions(threads=threads)  # which refuses what is out of range
    serve(host, port, threads=threads, trust_network=trust_network, on_start=note)
