# SPDX-License-Identifier: Apache-2.0
"""The upstream server's routes: the payloads of its client, and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests
from served import PATIENCE_S, flat, grey, serving, whole  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def post(url: str, route: str, **body: Any) -> tuple[int, dict[str, Any]]:
    reply = requests.post(f"{url}/{route}", json={"task_description": "put it down", **body}, timeout=PATIENCE_S)
    return reply.status_code, reply.json()


def test_health_has_upstreams_keys(url: str) -> None:
    assert requests.get(f"{url}/health", timeout=PATIENCE_S).json() == {
        "status": "healthy",
        "model_loaded": True,
        "adapters": [],
    }


@pytest.mark.parametrize(("light", "done"), [(200, True), (100, False)])
def test_completion(url: str, light: int, done: bool) -> None:
    code, reply = post(url, "compute_completion", **flat(grey(light)))
    word = "yes" if done else "no"
    assert code == 200
    assert reply == {
        "success": True,
        "score": float(done),
        "value": float(done),
        "completed": done,
        "response": f'{{ "task_completed": "{word}" }}',
    }
    assert post(url, "compute_completion", image=whole(grey(light))) == (code, reply)


def test_comparison(url: str) -> None:
    dark, light = grey(10), grey(90)
    for first, second, name, score in ((dark, light, "ImageB", 1.0), (light, dark, "ImageA", -1.0)):
        code, reply = post(url, "compute_comparison", **flat(first, "image_a"), **flat(second, "image_b"))
        assert (code, reply["result"], reply["score"], reply["success"]) == (200, name, score, True)


def test_no_answer_is_no_success_and_no_number(url: str) -> None:
    code, reply = post(url, "compute_comparison", **flat(grey(10), "image_a"), **flat(grey(10), "image_b"))
    assert code == 500
    assert reply == {"success": False, "error": "the fake model sees two equally bright frames"}


def test_progress_with_and_without_first_and_goal_image(url: str) -> None:
    seen = grey(102)
    code, reply = post(url, "compute_reward", reward_type="progress", **flat(seen))
    assert (code, reply["score"], reply["response"]) == (200, 0.4, '{ "completion_progress": 0.4 }')
    more = flat(grey(1), "initial_image") | flat(grey(2), "goal_image")
    assert post(url, "compute_reward", **flat(seen), **more) == (code, reply)
    bare = {"initial_image": more["initial_image"], "goal_image": more["goal_image"]}
    assert post(url, "compute_reward", **flat(seen), **bare) == (code, reply), "their shape is the image's"
    code, reply = post(url, "compute_reward", reward_type="quality", **flat(seen))
    assert (code, reply["error"]) == (422, "reward_type 'quality' is not served; give 'progress'")


def test_a_batch_of_progress(url: str) -> None:
    body = {"images": [whole(grey(51)), whole(grey(204))], "task_descriptions": ["a", "b"]}
    code, reply = post(url, "compute_rewards_batch", **body)
    assert (code, [result["score"] for result in reply["results"]]) == (200, [0.2, 0.8])
    code, reply = post(url, "compute_rewards_batch", **body | {"task_descriptions": ["a"]})
    assert (code, reply["error"]) == (422, "2 images, but 1 task_descriptions")


@pytest.mark.parametrize("head", ["roboreward", "robometer", "topreward"])
def test_video_heads(url: str, head: str) -> None:
    code, reply = post(url, f"compute_{head}", frames=[whole(grey(0)), whole(grey(255))], fps=0.5)
    assert (code, reply["score"]) == (200, 0.5)
    more = {"roboreward": ("raw_score", 3), "robometer": ("progress_per_frame", []), "topreward": ("log_prob", -15.0)}
    assert reply[more[head][0]] == more[head][1]
    code, reply = post(url, f"compute_{head}", frames=[])
    assert (code, reply["error"]) == (422, "0 frames; give 1 to 256 (--max-images)")


def test_floats_of_0_to_1_and_other_channels_are_images_too(url: str) -> None:
    image = grey(204)
    for other in (image.astype(np.float32) / 255, np.dstack([image, image[:, :, :1]]), image[:, :, 0]):
        code, reply = post(url, "compute_reward", **flat(np.ascontiguousarray(other)))
        assert (code, reply["score"]) == (200, 0.8)


_GOOD = flat(grey(9))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"image": "no base64!"}, "image: its data is no base64"),
        ({"image_shape": [4, 6]}, "image: it has 72 bytes, shape [4, 6] of uint8 needs 24"),
        ({"image_shape": [4, 6, 2]}, "image: its shape is [4, 6, 2]; give [height, width, 3]"),
        ({"image_shape": [0, 6, 3]}, "image: its shape is [0, 6, 3]"),
        ({"image_shape": [-4, -6, 3]}, "image: its shape is [-4, -6, 3]"),
        ({"image_shape": [100_000, 100_000, 3]}, "image: it has 100000 x 100000 pixels, 8300000 is the most"),
        ({"image_shape": None}, "image has no shape; give image_shape"),
        ({"image_dtype": "object"}, "image: its dtype is 'object'"),
        ({"image_dtype": "float32"}, "image: it has 72 bytes, shape [4, 6, 3] of float32 needs 288"),
        ({"image": None}, "image.str: Input should be a valid string"),
        ({"task_description": " "}, "the task text is empty"),
        ({"task_description": 3}, "task_description: Input should be a valid string"),
        ({"task_description": "x" * 4001}, "the task has 4001 characters, 4000 is the most"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_reason(url: str, wrong: dict[str, Any], reason: str) -> None:
    code, reply = post(url, "compute_completion", **_GOOD | wrong)
    assert (code, reply["success"]) == (422, False)
    assert reply["error"].startswith(reason), reply["error"]


def test_floats_that_are_no_brightness_are_refused(url: str) -> None:
    for value in (np.nan, np.inf, -0.1, 1.5, 255.0):
        code, reply = post(url, "compute_completion", **flat(np.full((2, 2, 3), value, np.float32)))
        assert code == 422 and "outside 0 to 1 or that are no numbers" in reply["error"]
