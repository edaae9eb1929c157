# SPDX-License-Identifier: Apache-2.0
"""Replicas on Ray Serve: answers as without, a killed or stopped replica under load, an end that leaves nothing."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from served import ready, whole  # type: ignore[import-not-found]

from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.remote import RemoteModel
from lrm_ros.reward.serve import command
from lrm_ros.types import HEADS, Frame, Reward, RewardQuery, Unscored

ray_serve = pytest.importorskip("ray.serve", exc_type=ImportError)
pytestmark = pytest.mark.xdist_group("ray_serve")  # Ray is started once
START_S = 240.0  # a busy machine needs most of a minute
PATIENCE_S = 60.0


@contextlib.contextmanager
def program(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``lrm serve``; whatever is left of it at the end is killed."""
    line = [sys.executable, "-m", "lrm_ros.cli", "serve", "--port", "0", *words]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        for process in [*below(child.pid), child]:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        child.wait()


def below(process: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process).children(recursive=True)
    return []


def replicas(process: int) -> list[psutil.Process]:
    found = []
    for child in below(process):
        with contextlib.suppress(psutil.Error):
            found += [child] if "ServeReplica" in " ".join(child.cmdline()) else []
    return found


def wait_for(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "never came"
        time.sleep(0.05)


def figure(url: str, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", requests.get(f"{url}/metrics", timeout=PATIENCE_S).text, re.M)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Address and process of a server with two replicas; its end is looked at, too."""
    with program("--model", "fake", "--replicas", "2", "--max-batch", "8") as child:
        assert child.stdout is not None and child.stderr is not None
        url = child.stdout.readline().split()[-1]
        reply = requests.get(f"{url}/ready", timeout=PATIENCE_S)
        assert reply.status_code == 503 and reply.json()["error"] == "model 'fake' is being loaded"
        wait_for(lambda: child.poll() is not None or ready(url), START_S)
        yield url, child.pid
        started = below(child.pid)
        assert len(started) > 3
        folders = {match[0] for p in started if (match := re.search(r"/\S+?/lrm-ray-[^/ ]+", " ".join(p.cmdline())))}
        assert len(folders) == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 0
        assert [process for process in started if process.is_running()] == []
        assert not Path(folders.pop()).exists()
        assert child.stdout.read() == ""
        told = "a replica died; "  # of queries that it had, when a test killed it
        assert [line for line in child.stderr.read().splitlines() if not line.startswith(told)] == []


def queries_of(seed: int, count: int) -> list[RewardQuery]:
    rng = np.random.default_rng(seed)
    frames = [Frame(stamp, "front", rng.integers(0, 256, (4, 6, 3), np.uint8)) for stamp in range(count + 1)]
    heads = [sorted(HEADS)[number % 3] for number in range(count)]
    return [
        RewardQuery("t", head, tuple(frames[at : at + 2] if head == "contrastive" else frames[at : at + 1]))
        for at, head in enumerate(heads)
    ]


def test_answers_are_those_without_replicas_and_all_are_counted(server: tuple[str, int]) -> None:
    url, _ = server
    before = figure(url, "lrm_batch_queries_sum")
    asked = [queries_of(seed, 30) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda queries: RemoteModel(url).score(queries), asked))
    for queries, answers in zip(asked, given, strict=True):
        for answer, alone in zip(answers, FakeModel().score(queries), strict=True):
            assert isinstance(answer, Reward) and isinstance(alone, Reward)
            assert (answer.head, answer.stamp_ns) == (alone.head, alone.stamp_ns)
            assert answer.value == pytest.approx(alone.value)
    RemoteModel(url).score(queries_of(9, 30))  # brings what the replicas have not told yet
    assert 240 <= figure(url, "lrm_batch_queries_sum") - before <= 270
    assert figure(url, "lrm_replicas") == 2
    assert figure(url, "lrm_waiting_queries") == 0


def test_a_replica_that_is_killed_under_load_leaves_right_answers_or_refusals_in_time(server: tuple[str, int]) -> None:
    url, process = server
    end, timeout_s = threading.Event(), 10.0

    def client(number: int) -> tuple[int, list[str], float]:
        model, right, reasons, longest = RemoteModel(f"{url}?timeout={timeout_s:g}"), 0, [], 0.0
        seed = 1000 * number
        while not end.is_set():
            seed += 1
            queries = queries_of(seed, 3)
            started = time.monotonic()
            answers = model.score(queries)
            longest = max(longest, time.monotonic() - started)
            for answer, alone in zip(answers, FakeModel().score(queries), strict=True):
                assert isinstance(answer, Unscored) or answer.value == pytest.approx(alone.value), "mixed up"
            reasons += [answer.reason for answer in answers if isinstance(answer, Unscored)]
            right += sum(isinstance(answer, Reward) for answer in answers)
            answered.release()
        return right, reasons, longest

    answered = threading.Semaphore(0)
    first = {replica.pid for replica in replicas(process)}
    assert len(first) == 2
    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client, number) for number in range(6)]
        try:
            for _ in range(12):
                assert answered.acquire(timeout=PATIENCE_S)
            killed = first.pop()
            psutil.Process(killed).kill()
            wait_for(lambda: len({replica.pid for replica in replicas(process)} - {killed}) == 2, START_S)
            wait_for(lambda: figure(url, "lrm_replicas") == 2, START_S)
            for _ in range(24):
                assert answered.acquire(timeout=PATIENCE_S)
        finally:  # else the clients never end
            end.set()
        found = [each.result(PATIENCE_S) for each in clients]
    assert sum(right for right, _, _ in found) >= 36 * 3 - sum(len(reasons) for _, reasons, _ in found)
    assert all("not judged within" in reason or url in reason for _, reasons, _ in found for reason in reasons)
    assert max(longest for _, _, longest in found) < timeout_s + 5.0


def test_replicas_that_do_not_answer_are_no_reason_to_wait_longer_than_was_asked(server: tuple[str, int]) -> None:
    url, process = server
    query = {"head": "completion", "task": "t", "images": [0]}
    body = {"images": [whole(np.zeros((4, 6, 3), np.uint8))], "queries": [query], "timeout_s": 1.0}
    stopped = replicas(process)
    for replica in stopped:
        replica.suspend()
    try:
        started = time.monotonic()
        reply = requests.post(f"{url}/v1/score", json=body, timeout=PATIENCE_S)
        assert time.monotonic() - started < 15.0
        assert "not judged within 1 s" in reply.json()["answers"][0]["unscored"]
    finally:
        for replica in stopped:
            replica.resume()
    wait_for(
        lambda: "value" in requests.post(f"{url}/v1/score", json=body, timeout=PATIENCE_S).json()["answers"][0], START_S
    )


def test_a_model_that_no_replica_can_load_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with program("--model", str(tmp_path), "--replicas", "1") as child:
        assert child.wait(START_S) == 2
        assert child.stderr is not None
        said = child.stderr.read()
    assert said.count("\n") == 1 and "describes a 'llama' model" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replicas", "two"], "replicas 'two' is neither N nor MIN:MAX"),
        (["--replicas", "0"], "replicas '0' is neither"),
        (["--replicas", "3:2"], "replicas '3:2' is neither"),
        (["--replicas", "2", "--ray", "ray://a:1"], "neither 'local'"),
        (["--replicas", "2", "--device", "cuda:1"], "Ray gives each replica its GPU"),
        (["--replicas", "2", "--replica-gpus", "1.5"], "must be a whole number"),
    ],
)
def test_what_no_replicas_can_be_made_of_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--model", "fake", *words]) == 2
    assert said in capsys.readouterr().err


def test_without_ray_the_cure_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main(["--model", "fake", "--replicas", "2"]) == 2
    assert "pip install 'lrm_ros[ray]'" in capsys.readouterr().err
