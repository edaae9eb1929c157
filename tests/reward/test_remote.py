# SPDX-License-Identifier: Apache-2.0
"""A reward model on another machine: the same answers, and Unscored with the reason whatever goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from played_server import Replies, playing  # type: ignore[import-not-found]
from served import grey, serving  # type: ignore[import-not-found]

from lrm_ros.config import RewardConfig
from lrm_ros.reward import json_server, remote
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.load import load_model
from lrm_ros.reward.remote import RemoteModel
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_server, "_FIRST_PAUSE_S", 0.001)


def frame(light: int, stamp_ns: int = 0) -> Frame:
    return Frame(stamp_ns, "front", grey(light))


DARK, LIGHT = frame(51, 10**9), frame(204, 3 * 10**9)
EVERY = [
    RewardQuery("t", "contrastive", (DARK, LIGHT)),
    RewardQuery("t", "contrastive", (LIGHT, DARK)),
    RewardQuery("t", "contrastive", (LIGHT, LIGHT)),
    RewardQuery("t", "progress", (LIGHT,)),
    RewardQuery("t", "progress", (DARK, LIGHT), DARK),
    RewardQuery("t", "completion", (LIGHT,)),
    RewardQuery("other", "completion", (DARK,)),
    RewardQuery("t", "roboreward", (DARK, LIGHT)),
    RewardQuery("t", "robometer", (DARK, LIGHT)),
]


def said(answers: Sequence[Reward | Unscored]) -> list[tuple[int, str, float | str]]:
    return [(a.stamp_ns, a.head, a.value if isinstance(a, Reward) else a.reason) for a in answers]


def test_it_answers_as_the_model_itself_every_head_and_every_reason() -> None:
    with serving() as url:
        model = load_model(url)
        found, expected = said(model.score(EVERY)), said(FakeModel().score(EVERY))
        assert [(*answer[:2], str(answer[2]).removeprefix(f"{url}: ")) for answer in found] == [
            (*answer[:2], str(answer[2])) for answer in expected
        ]
        many = [RewardQuery("t", "progress", (frame(light, light),)) for light in range(150)]
        assert said(model.score(many)) == said(FakeModel().score(many))
        assert model.score([]) == []
        answer = model.score(EVERY[3:4])[0]
        assert isinstance(answer, Reward) and answer.model == url and answer.latency_s > 0


def test_the_engine_takes_it_by_its_address() -> None:
    with serving() as url:
        engine = RewardEngine(RewardConfig(model=url))
        assert engine.judge([DARK, LIGHT], "t").score == 0.5


def test_jpegs_are_smaller_and_nearly_the_same() -> None:
    with serving() as url:
        answer = RemoteModel(f"{url}/?jpeg=95&timeout=20").score([RewardQuery("t", "progress", (LIGHT,))])[0]
        assert isinstance(answer, Reward) and answer.value == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    "address", ["http://", "http://h?jpg=3", "http://h?jpeg=", "http://h?jpeg=0", "http://h?timeout=nan", "ftp://h"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give"):
        RemoteModel(address)


def test_a_token_goes_along_and_is_in_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(token="sesame") as url:
        assert "401: a token is needed" in said(RemoteModel(url).score(EVERY[3:4]))[0][2]
        named = RemoteModel(url.replace("//", "//lrm:sesame@"))
        answer = named.score(EVERY[3:4])[0]
        assert isinstance(answer, Reward) and "sesame" not in named.name + answer.model
        monkeypatch.setenv("LRM_SERVE_TOKEN", "sesame")
        assert isinstance(RemoteModel(url).score(EVERY[3:4])[0], Reward)


def test_where_no_server_answers_it_says_how_to_start_one() -> None:
    with pytest.raises(ConnectionError, match=r"no reward server answers at http://127\.0\.0\.1:9.*lrm serve"):
        load_model("http://127.0.0.1:9")


# ---- servers that the test plays -------------------------------------------------------------------------------------


def ours(post: Replies) -> Replies:
    """Replies of a server of ours, but for those to its batch route."""

    def replies(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        return post(path, body) if path == "/v1/score" else (200, {"status": "healthy", "model_loaded": True}, {})

    return replies


def scored(value: Any, **more: Any) -> tuple[int, Any, dict[str, str]]:
    answer = {"head": "progress", "stamp_ns": LIGHT.stamp_ns, "value": value, **more}
    return 200, {"model": "m", "answers": [answer]}, {}


ASKED = RewardQuery("t", "progress", (LIGHT,))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (scored(1.01), "its answer is none"),
        (scored(-0.1), "its answer is none"),
        (scored(float("nan")), "its answer is none"),
        (scored(True), "its answer is none"),
        (scored("0.5"), "its answer is none"),
        (scored(0.5, head="completion"), "its answer is none"),
        (scored(0.5, stamp_ns=1), "its answer is none"),
        (scored(None), "its answer is none"),
        (scored(None, unscored="dark"), ": dark"),
        ((200, {"answers": []}, {}), "it gave 0 answers to 1 queries"),
        ((200, {}, {}), "it gave no answers"),
        ((200, [], {}), "its reply is no object"),
        ((200, b"<html>", {}), "its reply is no JSON"),
        ((200, b"[" * 200_000, {}), "its reply is no JSON"),
        ((200, b'{"answers": ' + b"1" * 5000 + b"}", {}), "its reply is no JSON"),
        ((200, b'{"answers": "\xff"}', {}), "its reply is no JSON"),
        (scored(10**400), "its answer is none"),
        (scored(None, unscored="dark\n\ud800\x1b[2J"), ": dark \\ud800\\x1b[2J"),
        (scored("\ud800" * 1000), "its answer is none"),
        ((500, {"success": False, "error": "broken"}, {}), "500: broken"),
        ((500, {"success": False, "error": "\ud800\n" * 1000}, {}), "500: \\ud800"),
        ((404, b"", {}), "404: Not Found"),
    ],
)
def test_whatever_a_server_says_is_a_reward_or_unscored(reply: tuple[int, Any, dict[str, str]], reason: str) -> None:
    with playing(ours(lambda path, body: reply)) as url:
        answer = RemoteModel(url).score([ASKED])[0]
    assert isinstance(answer, Unscored) and reason in answer.reason, answer
    assert (answer.stamp_ns, answer.head) == (LIGHT.stamp_ns, "progress")
    assert answer.reason.isprintable() and len(answer.reason.encode()) < 20_000  # a message and a terminal carry it


@pytest.mark.parametrize("told", ["\xb2", "9" * 400, "-1", "soon"])
def test_a_time_to_wait_that_is_none_is_not_waited(told: str) -> None:
    with playing(ours(lambda path, body: (503, {"error": "loading"}, {"Retry-After": told}))) as url:
        answer = RemoteModel(f"{url}?timeout=1").score([ASKED])[0]
    assert isinstance(answer, Unscored)


def test_a_reply_that_comes_byte_by_byte_is_given_up_at_the_deadline() -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(200):
            time.sleep(0.05)
            yield b" "

    with playing(ours(lambda path, body: (200, drip(), {}))) as url:
        model = RemoteModel(f"{url}?timeout=1")
        started = time.monotonic()
        assert "no answer within 1 s" in said(model.score([ASKED]))[0][2]
        assert time.monotonic() - started < 5.0  # all of it takes ten


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (b"HTTP/1.1 200", b"O"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
)
def test_a_status_line_or_a_header_that_comes_byte_by_byte_is_given_up_at_the_deadline(
    begun: bytes, piece: bytes
) -> None:
    def drip() -> Iterator[bytes]:
        yield begun
        for _ in range(200):
            time.sleep(0.05)
            yield piece

    with playing(ours(lambda path, body: (0, drip(), {}))) as url:
        model = RemoteModel(f"{url}?timeout=1")
        started = time.monotonic()
        assert "no answer within 1 s" in said(model.score([ASKED]))[0][2]
        assert time.monotonic() - started < 5.0  # all of it takes ten


def test_a_server_whose_first_header_comes_byte_by_byte_is_none() -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(200):
            time.sleep(0.05)
            yield b"H"

    started = time.monotonic()
    with playing(lambda path, body: (0, drip(), {})) as url, pytest.raises(ConnectionError, match="no reward server"):
        RemoteModel(f"{url}?timeout=1")
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed_and_says_which_address_to_give(status: int) -> None:
    asked: list[str] = []

    def moved(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        asked.append(path)
        return (status, b"gone" * status, {"Location": "http://me:secret@127.0.0.1:9/there/v1/score"})

    with playing(ours(moved)) as url:
        reason = said(RemoteModel(url).score([ASKED]))[0][2]
    assert reason == (
        f"{url}: it redirects ({status}), which is not followed; give the address that it names: "
        "http://127.0.0.1:9/there"
    )
    assert asked == ["/v1/score"]  # once


@pytest.mark.parametrize(
    ("told", "says"),
    [("", "does not say where"), ("/there/health", "names: http://127.*/there"), ("http://[", "names: http://\\[")],
)
def test_an_address_that_redirects_is_refused_with_the_address_to_give(told: str, says: str) -> None:
    moved = pytest.raises(ConnectionError, match=rf"redirects \(308\).*{says}")
    with playing(lambda path, body: (308, b"", {"Location": told} if told else {})) as url, moved:
        RemoteModel(url)


def test_a_reply_without_an_end_is_given_up() -> None:
    with playing(ours(lambda path, body: (200, iter(lambda: b" " * 1_000_000, b""), {}))) as url:
        assert "its reply has more than 16000000 bytes" in said(RemoteModel(url).score([ASKED]))[0][2]


@pytest.mark.parametrize("about", [b"[" * 200_000, b"1" * 5000, b"\xff", b"<html>", b"null"])
def test_what_answers_and_is_no_reward_server_is_named(about: bytes) -> None:
    with playing(lambda path, body: (200, about, {})) as url, pytest.raises(ConnectionError, match="no reward server"):
        RemoteModel(url)


@pytest.mark.parametrize("token", ["\u20ac", "a\nb", "\x7f"])
def test_a_token_that_no_header_can_carry_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("LRM_SERVE_TOKEN", token)
    monkeypatch.setenv("OPENAI_API_KEY", token)
    for address, variable in (
        ("http://127.0.0.1:9", "LRM_SERVE_TOKEN"),
        ("openai:m@http://127.0.0.1:9", "OPENAI_API_KEY"),
    ):
        with pytest.raises(ValueError, match=f"{variable} has characters that no token has; set it anew"):
            load_model(address)


@pytest.mark.parametrize(
    ("told", "mass"), [(0.25, 0.25), (0, 0.0), (1, 1.0), (True, None), (None, None), ("0.5", None), (7.0, None)]
)
def test_the_mass_of_an_answer_comes_along_if_it_is_one(told: Any, mass: float | None) -> None:
    with playing(ours(lambda path, body: scored(0.5, mass=told))) as url:
        answer = RemoteModel(url).score([ASKED])[0]
    assert isinstance(answer, Reward) and answer.mass == mass


def test_what_may_pass_is_asked_again() -> None:
    waiting = [(429, {"error": "full"}, {"Retry-After": "0"}), (503, {"error": "loading"}, {}), scored(0.5)]
    with playing(ours(lambda path, body: waiting.pop(0))) as url:
        answer = RemoteModel(url).score([ASKED])[0]
    assert isinstance(answer, Reward) and answer.value == 0.5 and not waiting


def test_a_server_that_keeps_failing_is_left_alone_and_then_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[Any] = []

    def post(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        replies.append(path)
        return good or (503, {"error": "loading"}, {})

    good: Any = None
    with playing(ours(post)) as url:
        model = RemoteModel(f"{url}?timeout=1")
        for _ in range(3):
            assert isinstance(model.score([ASKED])[0], Unscored)  # at the deadline, or before the next try is due
        before = len(replies)
        assert "failed 3 times in a row and is left alone for" in said(model.score([ASKED]))[0][2]
        assert len(replies) == before
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + json_server.LEFT_ALONE_S)
        good = scored(0.5)
        assert isinstance(model.score([ASKED])[0], Reward)


def test_a_server_that_goes_or_is_silent_is_unscored_at_the_deadline() -> None:
    go_on = threading.Event()

    def post(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        assert go_on.wait(30)
        return scored(0.5)

    with playing(ours(post)) as url:
        model = RemoteModel(f"{url}?timeout=1")
        assert "no answer within 1 s" in said(model.score([ASKED]))[0][2]
        go_on.set()
    assert isinstance(model.score([ASKED])[0], Unscored)


def test_upstreams_server_is_asked_by_its_own_routes() -> None:
    asked: list[tuple[str, set[str]]] = []

    def replies(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if path == "/health":
            return 200, {"status": "healthy", "model_loaded": True, "adapters": []}, {}
        if path == "/ready":
            return 404, b"", {}
        asked.append((path, set(body)))
        assert np.frombuffer(remote.base64.b64decode(body.get("image", "")), np.uint8).size in (0, 72)
        if path == "/compute_comparison" and body["image_a"] == body["image_b"]:
            return 200, {"success": True, "result": None, "score": 0.0, "response": "hm"}, {}
        if path == "/compute_robometer":
            return 500, {"success": False, "error": "no head"}, {}
        return 200, {"success": True, "score": 1.0, "result": "ImageB", "completed": True}, {}

    with playing(replies) as url:
        found = RemoteModel(url).score(EVERY)
    image = {"image", "image_shape", "image_dtype"}
    more = {f"{name}{part}" for name in ("initial_image", "goal_image") for part in ("", "_shape", "_dtype")}
    assert asked[3:6] == [
        ("/compute_reward", {"task_description", "reward_type", *image}),
        ("/compute_reward", {"task_description", "reward_type", *image, *more}),
        ("/compute_completion", {"task_description", *image}),
    ]
    assert asked[7] == ("/compute_roboreward", {"task_description", "frames", "fps"})
    kinds = [type(answer) for answer in found]
    assert kinds == [Reward, Reward, Unscored, Reward, Reward, Reward, Reward, Reward, Unscored]
    assert "it could read no answer" in said(found)[2][2] and "500: no head" in said(found)[8][2]
