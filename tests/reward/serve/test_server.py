# SPDX-License-Identifier: Apache-2.0
"""The server around its routes: token, limits, slow and vanished clients, full queue, loading of the model, its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
from served import PATIENCE_S, flat, grey, ready, serving, whole  # type: ignore[import-not-found]

from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.remote import RemoteModel
from lrm_ros.reward.serve import command
from lrm_ros.reward.serve.server import RewardServer
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

BODY = {"task_description": "put it down", **flat(grey(200))}


class Gated(FakeModel):
    """Judges brightness when it is let; counts what it was asked."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.batches: list[int] = []

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        self.batches.append(len(queries))
        self.begun.release()
        assert self.go_on.wait(PATIENCE_S)
        return super().score(queries, readout)

    def load(self, name: str, device: str, mode: str) -> Gated:
        return self


def post(url: str, timeout: float = PATIENCE_S, **more: str) -> requests.Response:
    return requests.post(f"{url}/compute_completion", json=BODY, timeout=timeout, headers=more)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "never came"
        time.sleep(0.002)


def count(url: str, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", requests.get(f"{url}/metrics", timeout=PATIENCE_S).text, re.M)
    return float(found[1]) if found else 0.0


def test_a_token_is_asked_for_as_bearer_or_as_the_password_of_the_address() -> None:
    with serving(token="sesame") as url:
        bare = post(url)
        assert bare.status_code == 401 and "Authorization: Bearer" in bare.json()["error"]
        assert post(url, Authorization="Bearer sesame2").status_code == 401
        assert post(url, Authorization="Basic ???").status_code == 401
        assert post(url, Authorization="Bearer sesame").json()["score"] == 1.0
        assert post(url.replace("http://", "http://lrm:sesame@")).json()["score"] == 1.0, (
            "upstream's client can do that"
        )
        assert requests.get(f"{url}/metrics", timeout=PATIENCE_S).status_code == 401
        assert requests.get(f"{url}/health", timeout=PATIENCE_S).status_code == 200


def test_other_machines_are_let_in_with_a_token_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--model", "fake", "--host", "0.0.0.0"]) == 2
    assert "set a token in LRM_SERVE_TOKEN" in capsys.readouterr().err
    for host, local in (("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)):
        assert ServeConfig(host=host).is_local is local


def test_bodies_have_a_largest_size_told_or_not() -> None:
    with serving(max_body_mb=0.001) as url:
        reply = requests.post(f"{url}/compute_completion", data=b"x" * 1001, timeout=PATIENCE_S)
        assert reply.status_code == 413 and "1000 is the most" in reply.json()["error"]
        reply = requests.post(f"{url}/compute_completion", data=iter([b"x" * 600, b"x" * 600]), timeout=PATIENCE_S)
        assert reply.status_code == 413, "chunked, without a length"
        assert post(url).status_code == 200


def test_a_client_that_sends_one_byte_at_a_time_disturbs_nobody_and_is_given_up() -> None:
    with serving(body_s=0.5) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as slow:
            slow.sendall(b"POST /compute_completion HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
            assert post(url).json()["score"] == 1.0
            slow.settimeout(PATIENCE_S)
            reply = http.client.HTTPResponse(slow)
            reply.begin()
            assert reply.status == 408 and "did not arrive within 0.5 s" in json.load(reply)["error"]


def test_bodies_of_many_clients_have_a_largest_sum() -> None:
    model = Gated()
    with serving(model.load, max_bodies_mb=1.5 * len(json.dumps(BODY)) / 1e6) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(post, url)
        assert model.begun.acquire(timeout=PATIENCE_S)
        reply = post(url)
        assert (reply.status_code, reply.headers["Retry-After"]) == (429, "1")
        model.go_on.set()
        assert first.result().status_code == 200
        assert post(url).status_code == 200, "what is answered holds no memory"


def test_a_full_queue_is_429_with_a_time_and_not_ready() -> None:
    model = Gated()
    with serving(model.load, max_waiting=1, max_batch=1) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(post, url)
        assert model.begun.acquire(timeout=PATIENCE_S)
        second = pool.submit(post, url)
        wait_for(lambda: not ready(url))
        reply = post(url)
        assert reply.status_code == 429 and int(reply.headers["Retry-After"]) >= 1
        assert reply.json() == {"success": False, "error": reply.json()["error"]}
        model.go_on.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        assert count(url, 'lrm_requests_total{route="/compute_completion",status="429"}') == 1.0


def test_a_client_that_goes_is_not_judged() -> None:
    model = Gated()
    with serving(model.load, max_batch=1) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(post, url)
        assert model.begun.acquire(timeout=PATIENCE_S)
        with pytest.raises(requests.ReadTimeout):
            post(url, timeout=0.2)
        wait_for(lambda: count(url, "lrm_clients_gone_total") == 1)
        model.go_on.set()
        assert first.result().status_code == 200
        assert post(url).status_code == 200
        assert model.batches == [1, 1], "that of the client that went was not asked"


def test_what_waits_longer_than_a_request_says_is_unscored() -> None:
    model = Gated()
    body = {
        "images": [whole(grey(255))],
        "queries": [{"head": "completion", "task": "t", "images": [0]}],
        "timeout_s": 0.01,
    }
    with serving(model.load, max_batch=1) as url, ThreadPoolExecutor() as pool:
        first = pool.submit(post, url)
        assert model.begun.acquire(timeout=PATIENCE_S)
        late = pool.submit(requests.post, f"{url}/v1/score", json=body, timeout=PATIENCE_S)
        wait_for(lambda: count(url, "lrm_waiting_queries") == 1)
        threading.Timer(0.02, model.go_on.set).start()
        assert "not judged within 0.01 s" in late.result().json()["answers"][0]["unscored"]
        assert first.result().status_code == 200


def test_many_clients_at_once_get_their_own_answers() -> None:
    with serving() as url, ThreadPoolExecutor(32) as pool:

        def progress(light: int) -> float:
            body = {"task_description": "t", **flat(grey(light))}
            return requests.post(f"{url}/compute_reward", json=body, timeout=PATIENCE_S).json()["score"]

        assert list(pool.map(progress, range(256))) == [pytest.approx(light / 255) for light in range(256)]
        assert count(url, 'lrm_answers_total{head="progress",outcome="scored"}') == 256


def test_while_the_model_is_loaded_it_lives_and_is_not_ready() -> None:
    go_on = threading.Event()

    def load(name: str, device: str, mode: str) -> FakeModel:
        assert go_on.wait(PATIENCE_S)
        return FakeModel()

    server = RewardServer(ServeConfig(model="fake", port=0), "", load)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: requests.get(f"{server.url}/health", timeout=PATIENCE_S).json()["model_loaded"] is False)
        reply = post(server.url)
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
        assert reply.json()["error"] == "model 'fake' is being loaded"
        go_on.set()
        wait_for(lambda: ready(server.url))
        assert post(server.url).status_code == 200
    finally:
        go_on.set()
        server.stop()
        thread.join(PATIENCE_S)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason() -> None:
    def load(name: str, device: str, mode: str) -> FakeModel:
        raise ValueError("half a model")

    server = RewardServer(ServeConfig(model="fake", port=0), "", load)
    server.run()
    assert str(server.failure) == "half a model"


def test_the_command_serves_and_ends_with_0_after_what_was_asked() -> None:
    program = [sys.executable, "-m", "lrm_ros.cli", "serve", "--model", "fake", "--port", "0"]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stderr is not None
        url = child.stdout.readline().split()[-1]
        wait_for(lambda: ready(url))
        assert post(url).json()["score"] == 1.0
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 0
        assert child.stderr.read() == ""
    finally:
        child.kill()
        child.wait()


def test_a_server_that_is_killed_under_load_leaves_every_query_answered_rightly_or_unscored() -> None:
    program = [sys.executable, "-m", "lrm_ros.cli", "serve", "--model", "fake", "--port", "0"]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    killed = threading.Event()

    def client(number: int) -> tuple[int, list[str]]:
        """Ask until the server has been killed and has not answered."""
        model, right = models[number], 0
        while True:
            light = 5 * ((7 * right + number) % 50)
            asked = [RewardQuery("t", "progress", (Frame(right, "front", grey(light)),))] * 3
            after = killed.is_set()
            answers = model.score(asked)
            reasons = [answer.reason for answer in answers if isinstance(answer, Unscored)]
            if reasons and after:
                return right, reasons
            for answer in answers:
                assert isinstance(answer, Unscored) or abs(answer.value - light / 255) < 1e-6
            right += not reasons
            answered.release()

    answered = threading.Semaphore(0)
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split()[-1]
        wait_for(lambda: ready(url))
        models = [RemoteModel(f"{url}?timeout=2") for _ in range(6)]  # all are there before it is killed
        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(client, number) for number in range(6)]
            try:
                for _ in range(60):
                    assert answered.acquire(timeout=PATIENCE_S)
            finally:  # else the clients never end
                child.kill()
                killed.set()
            found = [each.result(PATIENCE_S) for each in clients]
    finally:
        child.kill()
        child.wait()
    assert sum(right for right, _ in found) >= 60 - 6
    assert all(reason.startswith(url) for _, reasons in found for reason in reasons)


def test_the_command_says_what_is_wrong_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command.main(["--model", "fake", "--port", str(port)]) == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err
    assert command.main(["--model", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert command.main(["--model", "fake", "--mode", "guess"]) == 2
    assert "reward mode 'guess' is unknown" in capsys.readouterr().err
    (tmp_path / "token").write_text(" \n")
    assert command.main(["--model", "fake", "--token-file", os.fspath(tmp_path / "token")]) == 2
    assert "holds no token" in capsys.readouterr().err
