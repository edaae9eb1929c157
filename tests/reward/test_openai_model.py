# SPDX-License-Identifier: Apache-2.0
"""Reward heads behind an OpenAI-compatible server, which the test plays: the read-out, and whatever goes wrong."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from played_server import playing  # type: ignore[import-not-found]
from served import grey  # type: ignore[import-not-found]

from lrm_ros.reward import json_server, openai_model
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.load import load_model
from lrm_ros.reward.openai_model import OpenAiModel, places
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

DARK, LIGHT = (Frame(light, "front", grey(light)) for light in (51, 204))
PROGRESS = RewardQuery("put it down", "progress", (DARK, LIGHT))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_server, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(openai_model, "TIMEOUT_S", 5.0)


def tokens(**found: float) -> tuple[int, Any, dict[str, str]]:
    """A reply that says how likely the next tokens are."""
    top = [{"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in found.items()]
    return 200, {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": top}]}}]}, {}


def text(said: Any) -> tuple[int, Any, dict[str, str]]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": said}}]}, {}


def test_where_the_answers_of_the_heads_part() -> None:
    digits = tuple("0123456789")
    assert places(HEADS["progress"].candidates) == [("", ("0", "1")), ("0.", digits)]
    assert places(HEADS["contrastive"].candidates) == [("Image", ("A", "B"))]
    assert places(HEADS["completion"].candidates) == [("", ("n", "y"))]


def test_progress_is_the_expectation_over_both_places() -> None:
    asked: list[dict[str, Any]] = []

    def replies(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        assert path == "/v1/chat/completions"
        asked.append(body)
        begun = body["messages"][-1]["content"]
        if begun.endswith(": "):
            return tokens(**{"0": 0.7, "1": 0.2, "-": 0.1})
        assert begun.endswith(": 0.")
        return tokens(**{"5": 0.5, "6": 0.3, "x": 0.2})

    with playing(replies) as url:
        model = load_model(f"openai:lrm-{{head}}@{url}/v1")
        answer = model.score([PROGRESS])[0]
    assert isinstance(answer, Reward) and answer.stamp_ns == 204
    assert answer.value == pytest.approx((0.7 * (0.5 * 0.5 + 0.3 * 0.6) + 0.2 * 1.0) / (0.7 * 0.8 + 0.2))
    first = asked[0]
    assert first["model"] == "lrm-progress"
    more = ("max_tokens", "logprobs", "top_logprobs", "add_generation_prompt", "continue_final_message", "temperature")
    assert [first[key] for key in more] == [1, True, 20, False, True, 0.0]
    user, assistant = first["messages"]
    assert assistant == {"role": "assistant", "content": HEADS["progress"].prefix}
    kinds = [part["type"] for part in user["content"]]
    expected = HEADS["progress"].messages(PROGRESS)[0]["content"]
    assert [kind.removesuffix("_url") for kind in kinds] == [part["type"] for part in expected]
    data = user["content"][kinds.index("image_url")]["image_url"]["url"].removeprefix("data:image/png;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (shown == DARK.image).all()


@pytest.mark.parametrize(
    ("head", "found", "value"),
    [
        ("completion", {"yes": 0.6, "no": 0.2}, 0.75),
        ("completion", {"ye": 0.6, "n": 0.1, "no": 0.1}, 0.75),
        ("completion", {'yes"': 0.3, "": 0.5, "no": 0.1}, 0.75),
        ("contrastive", {"A": 0.25, "B": 0.75}, 0.5),
        ("contrastive", {'B"': 0.5}, 1.0),
    ],
)
def test_heads_of_one_place(head: str, found: dict[str, float], value: float) -> None:
    frames = (DARK, LIGHT) if head == "contrastive" else (LIGHT,)
    with playing(lambda path, body: tokens(**found)) as url:
        answer = OpenAiModel(f"openai:m@{url}").score([RewardQuery("t", head, frames)])[0]
    assert isinstance(answer, Reward) and answer.value == pytest.approx(value)


def test_generate_reads_what_the_model_writes() -> None:
    def replies(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        assert body["max_tokens"] == 128 and len(body["messages"]) == 1 and "logprobs" not in body
        return text('It moves. { "completion_progress": 0.3 }')

    with playing(replies) as url:
        answer = OpenAiModel(f"openai:m@{url}").score([PROGRESS], "generate")[0]
    assert isinstance(answer, Reward) and answer.value == 0.3


def test_reason_reads_the_probabilities_after_what_the_model_wrote() -> None:
    begins: list[str] = []

    def replies(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if len(body["messages"]) == 1:
            return text('It moves.\n{"completion_progress":0.3}')
        begins.append(body["messages"][-1]["content"])
        return tokens(**({"5": 1.0} if begins[-1].endswith("0.") else {"0": 0.5}))

    with playing(replies) as url:
        answer = OpenAiModel(f"openai:m@{url}").score([PROGRESS], "reason")[0]
    assert isinstance(answer, Reward) and (answer.value, answer.mass) == (pytest.approx(0.5), pytest.approx(0.5))
    assert begins == ['It moves.\n{"completion_progress":', 'It moves.\n{"completion_progress":0.']


@pytest.mark.parametrize(
    ("reply", "readout", "reason"),
    [
        (tokens(The=0.9, a=0.01), "forward", "have 0 probability together"),
        (text("0"), "forward", "no probabilities (logprobs); use readout:=generate"),
        ((200, {"choices": []}, {}), "forward", "no probabilities"),
        (tokens(**{"0": 3.0}), "forward", "its probabilities are none"),
        (tokens(**{"0": 0.7, "1": 0.7}), "forward", "its probabilities are none"),
        (text('{"completion_progress": ' + "1" * 400 + "}"), "generate", "the answer cannot be read"),
        (text('{"completion_progress": ' + "9" * 5000 + "}"), "generate", "the answer has 5025 characters"),
        (text("{" * 1_000_000), "generate", "the answer has 1000000 characters"),
        ((200, b"[" * 200_000, {}), "generate", "its reply is no JSON"),
        ((200, b"[" * 200_000, {}), "forward", "its reply is no JSON"),
        (text("well"), "generate", "the answer cannot be read: 'well'"),
        (text("well"), "reason", "the answer cannot be read: 'well'"),
        (text(None), "generate", "the answer cannot be read: 'None'"),
        ((200, {}, {}), "generate", "the answer cannot be read"),
        ((404, {"error": {"message": "The model `m` does not exist."}}, {}), "forward", "404: The model `m` does not"),
        ((400, {"object": "error", "message": "too long"}, {}), "forward", "400: too long"),
        ((401, b"", {}), "generate", "401: Unauthorized"),
        ((301, b"", {"Location": "https://h/v1/chat/completions"}), "generate", "address that it names: https://h/v1"),
    ],
)
def test_whatever_it_says_is_a_reward_or_unscored(reply: Any, readout: str, reason: str) -> None:
    with playing(lambda path, body: reply) as url:
        answer = OpenAiModel(f"openai:m@{url}").score([PROGRESS], readout)[0]
    assert isinstance(answer, Unscored) and reason in answer.reason, answer
    assert (answer.stamp_ns, answer.head) == (204, "progress")


def test_a_query_that_its_head_cannot_take_and_a_video_head_are_unscored_and_the_others_are_not() -> None:
    with playing(lambda path, body: tokens(yes=0.8, no=0.2)) as url:
        found = OpenAiModel(f"openai:m@{url}").score(
            [
                RewardQuery("t", "contrastive", (DARK,)),
                RewardQuery("t", "robometer", (DARK,)),
                RewardQuery("t", "completion", (DARK,)),
            ]
        )
    assert [type(answer) for answer in found] == [Unscored, Unscored, Reward]


def test_the_key_goes_along_and_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")

    def replies(path: str, body: dict[str, Any], headers: Any = None) -> tuple[int, Any, dict[str, str]]:
        seen.append(headers["Authorization"])
        return tokens(yes=0.8, no=0.2)

    with playing(replies, with_headers=True) as url:
        OpenAiModel(f"openai:org/m@{url}/v1").score([RewardQuery("t", "completion", (DARK,))])
    assert seen == ["Bearer sesame"]
    for address in ("openai:", "openai:m", "openai:@http://h", "openai:m@ftp://h", "openai:m@http://"):
        with pytest.raises(ValueError, match="give openai:NAME@http"):
            OpenAiModel(address)
