# SPDX-License-Identifier: Apache-2.0
"""``lrm bench serve --replicas N``: queries a second of N replicas against one, of a stub that sleeps a latency.

The stub judges brightness, so that every answer is checked against its own picture, and sleeps before it. Two
replicas of a real model on one CPU would only share it; a GPU each they do not, and what is left is the server's part.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lrm_ros.commit import source_commit
from lrm_ros.config_serve import ServeConfig
from lrm_ros.image_files import encode
from lrm_ros.reward.fake import FakeModel
from lrm_ros.types import Reward, RewardQuery, Unscored

# A query of all heads mixed in a batch of 32, 8B in bfloat16 on one H200: 25.7 queries/s (docs/benchmarks.md) [ms].
LATENCY_MS = 39.0
_START_S = 300.0
_CLIENTS = 8  # for each replica
_QUERIES = 4  # of a request, each about its own picture
_BATCH = 8
_ROUNDS = 3


class Sleeper(FakeModel):
    """Judges brightness after a sleep."""

    def __init__(self, latency_ms: float) -> None:
        """Sleep so long for each query [ms]."""
        self.name = f"sleep:{latency_ms:g}"
        self._seconds = latency_ms / 1000

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query from the brightness of its frames."""
        time.sleep(self._seconds * len(queries))
        return super().score(queries, readout)


def load(name: str, device: str, mode: str) -> Sleeper:
    """Return the stub that a name such as ``sleep:39`` describes."""
    return Sleeper(float(name.removeprefix("sleep:")))


@contextlib.contextmanager
def stub_server(replicas: int, latency_ms: float) -> Iterator[str]:
    """Serve the stub in a process of its own; gives its address when it judges."""
    # Not as a program: as __main__ this module would have another name, under which no replica finds its function.
    line = f"from lrm_ros.training.bench.replicas import serve; serve({replicas}, {latency_ms})"
    child = subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        url = child.stdout.readline().strip()
        asyncio.run(_wait_ready(url, child))
        yield url
    finally:
        child.terminate()
        child.wait(_START_S)


async def _wait_ready(url: str, child: subprocess.Popen[str]) -> None:
    import aiohttp

    end = time.monotonic() + _START_S
    async with aiohttp.ClientSession() as session:
        while child.poll() is None:
            with contextlib.suppress(aiohttp.ClientConnectionError):  # it has just ended
                async with session.get(f"{url}/ready") as reply:
                    if reply.status == 200:
                        return
            if time.monotonic() > end:
                raise TimeoutError(f"the server at {url} was not ready within {_START_S:g} s")
            await asyncio.sleep(0.2)
    raise RuntimeError(f"the server ended with {child.returncode} before it was ready")


async def throughput(url: str, clients: int, seconds: float, settle_s: float = 2.0) -> dict[str, Any]:
    """Return what clients that ask one request after the other got in some seconds.

    Args:
        url: of the server.
        clients: at once.
        seconds: that count.
        settle_s: before them, until all replicas have enough to do [s].
    """
    import aiohttp

    levels = 32
    grey = [np.full((480, 640, 3), 8 * level, np.uint8) for level in range(levels)]
    pictures = [base64.b64encode(encode(image, "jpeg", 90)).decode() for image in grey]
    statuses: Counter[str] = Counter()
    mixed = answered = 0
    begin = time.monotonic() + settle_s
    end = begin + seconds

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal mixed, answered
        while time.monotonic() < end:
            number += 7
            shown = [(number + place) % levels for place in range(_QUERIES)]
            body = {
                "images": [{"data": pictures[level]} for level in shown],
                "queries": [{"head": "progress", "task": "t", "images": [place]} for place in range(_QUERIES)],
            }
            async with session.post(f"{url}/v1/score", json=body) as reply:
                found = await reply.json()
            now = time.monotonic()
            if not begin <= now < end:
                continue
            statuses[str(reply.status)] += 1
            for level, answer in zip(shown, found.get("answers", []), strict=False):
                mixed += "value" in answer and abs(answer["value"] * 255 - 8 * level) > 1.5
                answered += "value" in answer

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session, number) for number in range(clients)))
    return {
        "clients": clients,
        "queries_per_s": answered / seconds,
        "statuses": dict(statuses),
        "answers_of_another_picture": int(mixed),
    }


def measure(replicas: int, latency_ms: float, seconds: float) -> dict[str, Any]:
    """Measure one replica and several in turn, each on a Ray of its own, as other programs come and go.

    Args:
        replicas: to compare with one.
        latency_ms: of the stub, for each query [ms].
        seconds: of all rounds together for each; ``times`` is the median of their ratios.
    """
    rows, times = [], []
    clients = _CLIENTS * replicas  # the same crowd
    with stub_server(1, latency_ms) as one, stub_server(replicas, latency_ms) as several:
        for _ in range(_ROUNDS):
            pair = []
            for count, url in ((1, one), (replicas, several)):
                row = {"replicas": count, **asyncio.run(throughput(url, clients, seconds / _ROUNDS))}
                row["load"] = os.getloadavg()[0]
                pair.append(row["queries_per_s"])
                rows.append(row)
                print(json.dumps(row), flush=True)
            times += [pair[1] / pair[0]] if min(pair) else []  # nothing at all: the machine was elsewhere
    return {
        "latency_ms": latency_ms,
        "seconds": seconds,
        "rows": rows,
        "times": float(np.median(times)) if times else None,
        "commit": source_commit(),
        "cores": os.cpu_count(),
    }


def serve(replicas: int, latency_ms: float) -> None:
    """Serve the stub until asked to stop; prints the address."""
    from lrm_ros.reward.serve.server import RewardServer

    config = ServeConfig(model=f"sleep:{latency_ms:g}", port=0, replicas=str(replicas), max_batch=_BATCH)
    server = RewardServer(config, load=load)
    print(server.url, flush=True)
    server.run()
    if server.failure is not None:
        raise server.failure
