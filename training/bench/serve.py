# SPDX-License-Identifier: Apache-2.0
"""``lrm bench serve``: the reward server's own time, and what it stands: a hop, many clients, a slow one among them.

The server is a process with the fake model, which judges brightness: every answer is checked against its own picture.
The hop is one client on loopback that sends a 640x480 JPEG, once as cameras have it (colour at half the resolution),
once as our client sends it (at full); the crowd are clients that ask one after the other, as
fast as they are answered, with a slow one among them that sends a byte a second. With ``--replicas`` it measures
replicas against one instead (``lrm_ros.training.bench.replicas``).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.commit import source_commit
from lrm_ros.image_files import encode
from lrm_ros.options import number, whole

START_S = 60.0
_LEVELS = 64  # different pictures of the crowd


@contextmanager
def server(**settings: str) -> Iterator[tuple[str, int]]:
    """Start ``lrm serve`` with the fake model; gives its address and its process id."""
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    program = [sys.executable, "-m", "lrm_ros.cli", "serve", "--model", "fake", "--port", "0", *words]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child.stdout.readline().split()[-1], child.pid
    finally:
        child.terminate()
        child.wait(START_S)


def jpeg(image: NDArray[np.uint8]) -> str:
    """Return a picture (H, W, 3) as a JPEG in base64, as our client sends it."""
    return base64.b64encode(encode(image, "jpeg", 90)).decode()


def camera_jpeg(image: NDArray[np.uint8]) -> str:
    """Return a picture (H, W, 3) as a JPEG in base64, as cameras have it: 4:2:0."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]
    return base64.b64encode(cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()).decode()


def noisy(width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture with as much in it as a camera's: its JPEG has more than 100 kB at 640x480."""
    import cv2

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def request(images: list[str], head: str = "progress") -> dict[str, Any]:
    """Return a request to ``/v1/score`` about one picture."""
    return {
        "images": [{"data": data} for data in images],
        "queries": [{"head": head, "task": "put it down", "images": list(range(len(images)))}],
    }


async def hop(url: str, count: int, picture: str) -> dict[str, float]:
    """Return the times of ``count`` requests of one client about a picture in base64 [ms]."""
    import aiohttp

    data = json.dumps(request([picture])).encode()
    times = []
    async with aiohttp.ClientSession() as session:
        for _ in range(count + 20):
            started = time.perf_counter()
            async with session.post(
                f"{url}/v1/score", data=data, headers={"Content-Type": "application/json"}
            ) as reply:
                await reply.read()
                assert reply.status == 200
            times.append(1000 * (time.perf_counter() - started))
    p50, p95, p99 = np.percentile(times[20:], [50, 95, 99])
    return {"n": count, "jpeg_bytes": len(data) * 3 // 4, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


async def crowd(url: str, clients: int, seconds: float) -> dict[str, Any]:
    """Return what clients got in some seconds: statuses, answers of another picture, requests a second, times."""
    import aiohttp

    bodies = [
        json.dumps(request([jpeg(np.full((24, 32, 3), 4 * level, np.uint8))])).encode() for level in range(_LEVELS)
    ]
    statuses: Counter[str] = Counter()
    times: list[float] = []
    mixed = 0
    end = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, first: int) -> None:
        nonlocal mixed
        level = first
        while time.monotonic() < end:
            level = (level + 1) % _LEVELS
            started = time.perf_counter()
            try:
                async with session.post(
                    f"{url}/v1/score", data=bodies[level], headers={"Content-Type": "application/json"}
                ) as reply:
                    found = await reply.json()
                    statuses[str(reply.status)] += 1
                    if reply.status == 200:
                        times.append(time.perf_counter() - started)
                        mixed += abs(found["answers"][0]["value"] * 255 - 4 * level) > 1.5
                    elif reply.status == 429:
                        await asyncio.sleep(float(reply.headers["Retry-After"]))
            except (TimeoutError, aiohttp.ClientError) as error:
                statuses[type(error).__name__] += 1

    async def slow() -> None:
        _reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        while time.monotonic() < end and not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(1.0)
        writer.close()

    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(slow(), *(client(session, number) for number in range(clients)))
    p50, p95, p99 = np.percentile(times or [np.nan], [50, 95, 99])
    return {
        "clients": clients,
        "seconds": seconds,
        "statuses": dict(statuses),
        "answers_of_another_picture": int(mixed),
        "requests_per_s": len(times) / seconds,
        "p50_s": p50,
        "p95_s": p95,
        "p99_s": p99,
    }


def memory_mb(process: int) -> float:
    """Return how much of a process is in memory [MB]."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def wait_ready(url: str) -> None:
    """Wait until a server judges."""
    import aiohttp

    end = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/ready") as reply:
                if reply.status == 200:
                    return
            if time.monotonic() > end:
                raise TimeoutError(f"the server at {url} was not ready within {START_S:g} s")
            await asyncio.sleep(0.05)


def measure(clients: int, seconds: float, count: int) -> dict[str, Any]:
    """Measure the hop, then the crowd twice with the memory after each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * clients + 200)), hard))
    with server(max_waiting=str(max(1024, 2 * clients))) as (url, process):
        asyncio.run(wait_ready(url))
        picture = noisy(640, 480)
        kinds = {"camera": camera_jpeg(picture), "ours": jpeg(picture)}
        found: dict[str, Any] = {"hop": {name: asyncio.run(hop(url, count, data)) for name, data in kinds.items()}}
        asyncio.run(crowd(url, clients, min(10.0, seconds)))  # its connections and buffers are made
        before = memory_mb(process)
        found["crowd"] = asyncio.run(crowd(url, clients, seconds))
        found["memory_mb"] = {"before": before, "after": memory_mb(process)}
    return found | {"commit": source_commit(), "cores": os.cpu_count()}


def main(argv: list[str] | None = None) -> int:
    """Run it; returns 1 if an answer was lost, of another picture, or the server's own fault (5xx)."""
    parser = argparse.ArgumentParser(prog="lrm bench serve", description=__doc__)
    parser.add_argument("--clients", type=whole(1), default=1000, help="clients at once (default: 1000)")
    parser.add_argument("--seconds", type=number(0.1), default=60.0, help="for so long [s] (default: 60)")
    parser.add_argument("--count", type=whole(1), default=500, help="requests of the hop (default: 500)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--replicas", type=whole(2), help="instead: so many replicas on Ray against one, of a stub")
    parser.add_argument("--latency-ms", type=number(0.1), help="which sleeps so long for each query [ms]")
    args = parser.parse_args(argv)
    if args.replicas:
        from lrm_ros.training.bench import replicas

        found = replicas.measure(args.replicas, args.latency_ms or replicas.LATENCY_MS, args.seconds)
    else:
        found = measure(args.clients, args.seconds, args.count)
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    good = all(
        set(crowd["statuses"]) <= {"200", "429"} and not crowd["answers_of_another_picture"]
        for crowd in found.get("rows", [found.get("crowd")])
    )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
