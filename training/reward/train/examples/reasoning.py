# SPDX-License-Identifier: Apache-2.0
"""The reasoning text before a label: a sentence from the label (template) or the text of a larger model (teacher).

Paper: III-C, "reasoning-first": the model articulates what it sees before it concludes. The paper does not say who
wrote the text. A template only says what the label says; a teacher that sees the images can name what is to be seen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from lrm_ros.progress import progress_bar
from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.train.rows import Example, query_of


def template(example: Example, value: float) -> str:
    """Return a sentence that says no more than label and kind: how far the task is, or which image is further.

    Args:
        example: a progress or contrastive example.
        value: the answer the sentence leads to.

    Raises:
        ValueError: the head answers without reasoning.
    """
    if example.head == "contrastive":
        nearer, other = ("B", "A") if value > 0 else ("A", "B")
        return f"The scene in Image {nearer} is closer to the finished task than the scene in Image {other}."
    if example.head != "progress":
        raise ValueError(f"head '{example.head}' answers without reasoning")
    if example.kind == "wrong_task":
        return "The current observation shows another task, nothing of this one."
    if value == 0:
        return "Nothing of the task has been achieved yet in the current observation."
    if value == 1:
        return "The current observation shows the finished task."
    tenths = round(value * 10)
    stage = "an early" if tenths <= 3 else "a middle" if tenths <= 6 else "a late"
    return f"The current observation shows {stage} stage: about {tenths} tenths of the task are done."


_TEACHER_PROMPT = (
    "\n\nThe right answer is known: {answer}\nIn one to three short sentences, name what is to be seen in the images "
    "that leads to this answer: where the objects, the hand or gripper are, and what touches what. Say only what can "
    "be seen. Do not say that the answer was given. Do not write the JSON answer."
)


class TeacherError(RuntimeError):
    """The teacher did not answer; the message names its address and what to do."""


@dataclass(frozen=True)
class Teacher:
    """A vision-language model behind an OpenAI-compatible HTTP interface that explains a given label; cached on disk.

    Attributes:
        url: base address, e.g. ``http://localhost:8000/v1``.
        model: name of the model there.
        cache: folder of the answers, one file each, named by the hash of everything that was asked.
        key_variable: environment variable that holds the key; empty: no key is sent.
        timeout_s: how long one answer may take [s].
        attempts: how often a request is sent when the server is busy or away.
        backoff_s: wait before the second try; doubled for each further one [s].
        max_tokens: length of an answer.
    """

    url: str
    model: str
    cache: Path
    key_variable: str = ""
    timeout_s: float = 120.0
    attempts: int = 4
    backoff_s: float = 2.0
    max_tokens: int = 100

    def __call__(self, example: Example, value: float) -> str:
        """Return the text that leads to the answer ``value``, from the cache if it was asked before.

        Raises:
            TeacherError: no usable answer.
        """
        body = self._request(example, value)
        file = self._file(body)
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))["text"]
        text = _only_reasoning(self._ask(body))
        if not text:
            raise TeacherError(
                f"teacher '{self.model}' at {self.url} wrote no reasoning about '{example.task}'; try another model"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}.{time.monotonic_ns()}")
        temporary.write_text(json.dumps({"text": text, "model": self.model, "task": example.task, "value": value}))
        os.replace(temporary, file)
        return text

    def fill_cache(self, wanted: Iterable[tuple[Example, float]], total: int, workers: int = 8) -> None:
        """Fill the cache with the text of every (example, answer); what is there already costs no request.

        Args:
            wanted: examples and the answers to explain.
            total: how many there are, for the progress bar.
            workers: requests at the same time.

        Raises:
            TeacherError: an answer is missing; the others are kept, so that the same call resumes there.
        """
        with progress_bar(total, "reasoning", "text") as bar, ThreadPoolExecutor(workers) as pool:
            pending: set[Future[str]] = set()

            def collect(limit: int) -> None:
                while len(pending) > limit:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        pending.discard(future)
                        future.result()
                        bar.update(1)

            try:
                for example, value in wanted:
                    pending.add(pool.submit(self, example, value))
                    collect(4 * workers)
                collect(0)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _request(self, example: Example, value: float) -> dict[str, Any]:
        """Return the request: the head's own user turn, then the answer to explain."""
        head = HEADS[example.head]
        content: list[dict[str, Any]] = []
        for part in head.messages(query_of(example))[0]["content"]:
            if part["type"] == "text":
                content.append(part)
            else:
                ok, data = cv2.imencode(".jpg", part["image"][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
                if not ok:
                    raise TeacherError(f"an image of '{example.task}' cannot be written as JPEG")
                address = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
                content.append({"type": "image_url", "image_url": {"url": address}})
        content.append({"type": "text", "text": _TEACHER_PROMPT.format(answer=head.answer(value))})
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": 0.0,
        }

    def _file(self, body: dict[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return self.cache / name[:2] / f"{name}.json"

    def _ask(self, body: dict[str, Any]) -> str:
        """Send a request, again while the server is busy or away, and return the answer's text."""
        address = self.url.rstrip("/") + "/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            if not os.environ.get(self.key_variable):
                raise TeacherError(
                    f"the environment variable '{self.key_variable}' is not set; export the key of {self.url} in it"
                )
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        reason, opener = "", urllib.request.build_opener(_Stay)
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.backoff_s * 2 ** (attempt - 1))
            try:
                with opener.open(request, timeout=self.timeout_s) as response:
                    answer = response.read()
                break
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read()[:300].decode(errors='replace')}"
                if error.code < 400:
                    reason = f"HTTP {error.code}: it redirects to {error.headers.get('Location')}: give that address"
                if error.code not in (408, 429) and error.code < 500:
                    raise TeacherError(
                        f"{address} refused the request for model '{self.model}' ({reason}); check --teacher-url, "
                        "--teacher-model and the key; the model must accept images"
                    ) from None
            except (urllib.error.URLError, OSError) as error:
                reason = str(getattr(error, "reason", error))
        else:
            raise TeacherError(
                f"{address} gave no answer in {self.attempts} attempts ({reason}); start the server, or check "
                "--teacher-url; run the same command again to resume: answers so far are kept"
            )
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise TeacherError(
                f"{address} did not answer in the OpenAI chat format: {answer[:300].decode(errors='replace')!r}; "
                "--teacher-url must be the base address, usually ending in /v1"
            )
        return text


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would lose the request's body, and take the key to a server that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _only_reasoning(text: str) -> str:
    """Return a teacher's whole sentences as one line, without its thinking and without JSON."""
    text = " ".join(text.split("</think>")[-1].split("{")[0].split("```")[0].split())
    end = max(text.rfind(stop) for stop in ".!?")
    return text[: end + 1]
