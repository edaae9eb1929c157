# SPDX-License-Identifier: Apache-2.0
"""The batch route: many queries about images that are sent once; one bad one leaves the others alone."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from served import PATIENCE_S, base64_of, grey, serving, whole  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(max_pixels=10_000) as url:
        yield url


def score(url: str, images: list[Any], queries: list[Any], **more: Any) -> tuple[int, Any]:
    reply = requests.post(f"{url}/v1/score", json={"images": images, "queries": queries, **more}, timeout=PATIENCE_S)
    return reply.status_code, reply.json()


def ask(head: str, *images: int, **more: Any) -> dict[str, Any]:
    return {"head": head, "task": "put it down", "images": list(images), **more}


def encoded(array: Any, kind: str) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return {"data": base64_of(stream.getvalue())}


def test_every_head_in_one_request_with_the_stamps_of_its_images(url: str) -> None:
    images = [whole(grey(51)) | {"stamp_ns": 5}, encoded(grey(204), "PNG") | {"stamp_ns": 2**60}]
    queries = [
        ask("completion", 0),
        ask("completion", 1),
        ask("contrastive", 0, 1),
        ask("progress", 0, 1, goal=0),
        ask("robometer", 0, 1),
    ]
    code, reply = score(url, images, queries)
    assert code == 200 and reply["model"] == "fake"
    assert reply["answers"] == [
        {"head": "completion", "stamp_ns": 5, "value": 0.0},
        {"head": "completion", "stamp_ns": 2**60, "value": 1.0},
        {"head": "contrastive", "stamp_ns": 2**60, "value": 1.0},
        {"head": "progress", "stamp_ns": 2**60, "value": 0.8},
        {"head": "robometer", "stamp_ns": 2**60, "value": 0.5},
    ]


def test_a_jpeg_is_its_pixels(url: str) -> None:
    code, reply = score(url, [encoded(grey(204, 32, 32), "JPEG")], [ask("progress", 0)])
    assert (code, reply["answers"][0]["value"]) == (200, 0.8)


def _damaged() -> list[tuple[dict[str, Any], str]]:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    jpeg = stream.getvalue()
    bomb = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(bomb, "PNG")
    larger = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(larger, "PNG")
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep, "PNG")
    return [
        ({"data": base64_of(jpeg[: len(jpeg) // 2])}, "ends after"),
        ({"data": base64_of(b"GIF89a" + jpeg)}, "are neither JPEG nor PNG"),
        ({"data": ""}, "are neither JPEG nor PNG"),
        ({"data": "%"}, "no base64"),
        ({}, "neither data nor shared_memory"),
        ({"data": base64_of(bomb.getvalue())}, "9000x9000 pixels"),
        ({"data": base64_of(larger.getvalue())}, "20000x20000 pixels"),
        ({"data": base64_of(deep.getvalue())}, "has 16 bits a channel"),
        ({"shared_memory": "psm_other", "shape": [2, 2, 3]}, "must begin with 'lrm_'"),
        ({"shared_memory": "lrm_../../etc/passwd", "shape": [2, 2, 3]}, "must begin with 'lrm_'"),
        ({"shared_memory": "lrm_none", "shape": [2, 2, 3]}, "No such file"),
    ]


@pytest.mark.parametrize(("image", "reason"), _damaged())
def test_a_bad_image_spoils_its_own_queries_only(url: str, image: dict[str, Any], reason: str) -> None:
    code, reply = score(
        url, [image, whole(grey(255))], [ask("completion", 0), ask("completion", 1), ask("contrastive", 0, 1)]
    )
    first, second, third = reply["answers"]
    assert code == 200 and second["value"] == 1.0
    for answer in (first, third):
        assert "value" not in answer and answer["unscored"].startswith("images[0]: "), answer
        assert reason in answer["unscored"], answer


def test_a_query_that_its_head_cannot_take_is_unscored_and_the_others_are_not(url: str) -> None:
    queries = [ask("contrastive", 0), ask("completion", 0) | {"task": " "}, ask("completion", 0, goal=0)]
    code, reply = score(url, [whole(grey(255))], [*queries, ask("completion", 0)])
    reasons = [answer.get("unscored", "") for answer in reply["answers"]]
    assert code == 200
    assert [reason.split(";")[0] for reason in reasons] == [
        "head 'contrastive' needs 2 frame(s), got 1",
        "the task text is empty",
        "head 'completion' takes no goal image",
        "",
    ]


def test_shared_memory_of_this_machine(url: str) -> None:
    image = grey(204)
    segment = SharedMemory(f"lrm_test_{os.getpid()}", create=True, size=image.nbytes + 7)
    try:
        segment.buf[7:] = image.tobytes()
        about = {"shared_memory": segment.name, "offset": 7, "shape": [4, 6, 3]}
        code, reply = score(url, [about, about | {"offset": 8}], [ask("progress", 0), ask("progress", 1)])
        assert code == 200 and reply["answers"][0]["value"] == 0.8
        assert "it has 71 bytes, shape [4, 6, 3] of uint8 needs 72" in reply["answers"][1]["unscored"]
    finally:
        segment.close()
        segment.unlink()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"images": []}, "0 images; give 1 to 256"),
        ({"queries": []}, "0 queries; give 1 to 256"),
        ({"queries": [ask("completion", 0)] * 257}, "257 queries; give 1 to 256"),
        ({"queries": [ask("completion", 1)]}, "queries[0]: there is no image 1, only 0 to 0"),
        ({"queries": [ask("completion", -1)]}, "queries[0]: there is no image -1"),
        ({"queries": [ask("guess", 0)]}, "queries.0.head: Input should be"),
        ({"queries": [ask("completion", 0) | {"tsk": 1}]}, "queries.0.tsk: Extra inputs"),
        ({"readout": "guess"}, "readout: Input should be 'forward', 'reason' or 'generate'"),
        ({"timeout_s": 0}, "timeout_s: Input should be greater than 0"),
        ({"images": [whole(grey(1)) | {"stamp_ns": 2**63}]}, "images.0.stamp_ns: Input should be less"),
    ],
)
def test_a_request_that_is_none_is_refused(url: str, body: dict[str, Any], reason: str) -> None:
    code, reply = score(url, **{"images": [whole(grey(1))], "queries": [ask("completion", 0)], **body})
    assert (code, reply["success"]) == (422, False)
    assert reply["error"].startswith(reason), reply["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"images": NaN}', b'{"images": [1' + b"0" * 10_000 + b"]}"]
)
def test_what_is_no_json_of_a_request_is_refused(url: str, body: bytes) -> None:
    reply = requests.post(
        f"{url}/v1/score", data=body, headers={"Content-Type": "application/json"}, timeout=PATIENCE_S
    )
    assert reply.status_code in (400, 422) and reply.json()["success"] is False


def test_the_page_of_the_interface_has_examples(url: str) -> None:
    page = requests.get(f"{url}/openapi.json", timeout=PATIENCE_S).json()
    assert page["components"]["schemas"]["ScoreRequest"]["examples"]
    assert {"/v1/score", "/compute_completion", "/compute_reward", "/compute_comparison"} <= page["paths"].keys()
