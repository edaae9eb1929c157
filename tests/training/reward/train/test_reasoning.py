# SPDX-License-Identifier: Apache-2.0
"""The text before a label: the template, and a teacher behind a small HTTP server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from brightness import TASK, Example  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.train.examples.reasoning import Teacher, TeacherError, template


def image(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((48, 64, 3), colour, np.uint8)


RED, BLUE = image((220, 30, 30)), image((20, 40, 210))
PAIR = Example("contrastive", TASK, (RED, BLUE), 1.0)


@dataclass
class Server:
    """What a chat server got and says; ``replies`` are (status, body) in turn, the last one for ever."""

    url: str = ""
    replies: list[tuple[int, bytes]] = field(default_factory=list)
    requests: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


def said(text: str | None) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            state.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.keys.append(self.headers["Authorization"])
            status, body = state.replies[0] if len(state.replies) == 1 else state.replies.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def teacher(server: Server, tmp_path, **changes) -> Teacher:
    return Teacher(server.url, "large-vlm", tmp_path / "cache", **{"backoff_s": 0.0, **changes})


# ---- template --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HEADS["progress"].values)
def test_the_template_names_the_progress_and_the_answer_still_reads(value):
    text = template(Example("progress", TASK, (RED, BLUE), value), value)
    assert text.endswith(".") and "{" not in text
    assert HEADS["progress"].parse(f"{text}\n\n{HEADS['progress'].answer(value)}") == value
    if 0 < value < 1:
        assert f"about {round(10 * value)} tenths" in text


def test_the_template_names_the_image_that_the_answer_names():
    for value, better, worse in ((1.0, "B", "A"), (-1.0, "A", "B")):
        text = template(PAIR, value)
        assert text.index(f"Image {better}") < text.index(f"Image {worse}")
        assert HEADS["contrastive"].parse(f"{text}\n\n{HEADS['contrastive'].answer(value)}") == value


def test_the_template_says_when_the_text_is_that_of_another_task():
    example = Example("progress", TASK, (RED,), 0.0, "wrong_task")
    assert template(example, 0.0) == "The current observation shows another task, nothing of this one."


def test_completion_has_no_reasoning():
    with pytest.raises(ValueError, match="'completion' answers without reasoning"):
        template(Example("completion", TASK, (RED,), 1.0), 1.0)


# ---- teacher ---------------------------------------------------------------------------------------------------------


def test_the_teacher_is_shown_the_heads_own_question_its_images_and_the_answer(server, tmp_path):
    server.replies = [said("The pig lies in the bowl in Image B.")]
    assert teacher(server, tmp_path)(PAIR, 1.0) == "The pig lies in the bowl in Image B."
    request = server.requests[0]
    assert request["model"] == "large-vlm" and request["temperature"] == 0.0 and server.keys == [None]
    parts = request["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text", "text"]
    assert f"The task is: {TASK}." in parts[0]["text"] and '"more_complete_image": "ImageB" }' in parts[-1]["text"]
    for part, shown in ((parts[1], RED), (parts[3], BLUE)):
        kind, data = part["image_url"]["url"].split(",")
        assert kind == "data:image/jpeg;base64"
        seen = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert seen.shape == shown.shape and np.abs(seen.astype(int) - shown).max() < 8


def test_what_was_asked_once_is_not_asked_again_and_anything_else_is(server, tmp_path):
    server.replies = [said("First."), said("Second."), said("Third."), said("Fourth.")]
    first = teacher(server, tmp_path)
    assert (first(PAIR, 1.0), first(PAIR, 1.0)) == ("First.", "First.")
    assert teacher(server, tmp_path)(PAIR, 1.0) == "First."  # a new process
    assert first(PAIR, -1.0) == "Second."  # the other answer
    assert first(Example("contrastive", TASK, (BLUE, RED), 1.0), 1.0) == "Third."  # other images
    assert Teacher(server.url, "other-vlm", tmp_path / "cache")(PAIR, 1.0) == "Fourth."
    assert len(server.requests) == 4


def test_only_whole_sentences_are_kept_and_no_thoughts_and_no_json(server, tmp_path):
    server.replies = [
        said('<think>Hm, {B}?</think>The pig is\n in the bowl. The jaws are open {"a": 1}. Nothing else to')
    ]
    assert teacher(server, tmp_path)(PAIR, 1.0) == "The pig is in the bowl."


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.replies = [(503, b"loading"), (429, b"slow down"), said("It lies in the bowl.")]
    assert teacher(server, tmp_path)(PAIR, 1.0) == "It lies in the bowl."
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((404, b"no such model"), r"/v1/chat/completions refused .*'large-vlm' \(HTTP 404: no such model\); check"),
        ((500, b"broken"), r"no answer in 4 attempts \(HTTP 500: broken\); start the server"),
        ((200, b"<html>"), r"did not answer in the OpenAI chat format: '<html>'"),
        (said(None), "did not answer in the OpenAI chat format"),
        (said('{ "more_complete_image": "ImageB" }'), f"wrote no reasoning about '{TASK}'"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_with_address_and_cure(server, tmp_path, reply, message):
    server.replies = [reply]
    with pytest.raises(TeacherError, match=message) as caught:
        teacher(server, tmp_path)(PAIR, 1.0)
    assert server.url in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_a_redirection_is_not_followed_and_the_key_stays(server, tmp_path, monkeypatch):
    class Moved(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(302)
            self.send_header("Location", f"{server.url}/chat/completions")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Moved) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        asked = Teacher(f"http://127.0.0.1:{http.server_address[1]}/v1", "m", tmp_path, backoff_s=0.0, attempts=2)
        with pytest.raises(TeacherError, match=f"HTTP 302: it redirects to {server.url}/chat/completions: give that"):
            asked(PAIR, 1.0)
        http.shutdown()
        thread.join()
    assert server.requests == []


def test_a_server_that_is_not_there_is_named(server, tmp_path):
    absent = Teacher("http://127.0.0.1:9/v1", "large-vlm", tmp_path, backoff_s=0.0, attempts=2)
    with pytest.raises(TeacherError, match=r"127\.0\.0\.1:9/v1/chat/completions gave no answer in 2 att.*--teacher"):
        absent(PAIR, 1.0)


def test_the_key_is_read_from_the_named_variable(server, tmp_path, monkeypatch):
    server.replies = [said("Yes.")]
    keyed = teacher(server, tmp_path, key_variable="LRM_TEST_KEY")
    with pytest.raises(TeacherError, match="variable 'LRM_TEST_KEY' is not set"):
        keyed(PAIR, 1.0)
    monkeypatch.setenv("LRM_TEST_KEY", "abc")
    keyed(PAIR, 1.0)
    assert server.keys == ["Bearer abc"]


def test_a_broken_off_round_goes_on_where_it_stopped(server, tmp_path):
    wanted = [(Example("progress", f"{TASK} {i}", (RED, BLUE), 0.5), 0.5) for i in range(12)]
    server.replies = [said(f"Number {i}.") for i in range(7)] + [(400, b"full")]
    with pytest.raises(TeacherError, match="HTTP 400: full"):
        teacher(server, tmp_path).fill_cache(iter(wanted), len(wanted), workers=2)
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 7
    server.requests.clear()
    server.replies = [said("Later.")]
    teacher(server, tmp_path).fill_cache(iter(wanted), len(wanted), workers=2)
    assert len(server.requests) == 5
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 12
