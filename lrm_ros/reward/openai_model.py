# SPDX-License-Identifier: Apache-2.0
"""Reward heads on a vision-language model behind an OpenAI-compatible server (vLLM, SGLang): ``openai:NAME@URL``.

``forward``: the assistant's turn is begun with the answer's fixed start, and the probabilities of its next token are
read where the candidate answers part: "0" or "1", then the digit after "0."; "A" or "B" after "Image"; "yes" or "no".
A request a place, at most two a query; never more than one token is written. The answer is the expectation, as with
the model in process; its mass leaves out how likely the answer's start is, which the server does not tell. ``reason``:
the model writes, greedily, and the probabilities are read where its answer begins. ``generate``: the head reads what it
wrote.

Fields: ``continue_final_message`` and ``add_generation_prompt`` (vLLM:vllm/entrypoints/openai/chat_completion/
protocol.py; sglang:python/sglang/srt/entrypoints/openai/protocol.py has the first), ``logprobs`` and ``top_logprobs``
(20, vLLM's most). A server that ignores the first two writes an answer of its own: then the candidates have next to no
probability, and the query is Unscored. Tested against a server that a test plays; neither of the two was run.
"""

from __future__ import annotations

import math
import time
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from lrm_ros.errors import as_line
from lrm_ros.image_files import encode
from lrm_ros.reward.heads import HEADS, Head
from lrm_ros.reward.json_server import JsonServer, NoAnswer, bearer
from lrm_ros.reward.models import READOUTS, other_head
from lrm_ros.types import Reward, RewardQuery, Unscored

KEY = "OPENAI_API_KEY"
PREFIX = "openai:"
TIMEOUT_S = 60.0  # of a call of ``score`` in all [s]
AT_ONCE = 16  # requests
LEAST_MASS = 0.05  # of the candidates together; below it the model did not answer what it was asked
_LONGEST = 32  # characters a token, on average; a longer answer is not what was asked for
_TOP = 20  # tokens whose probability is told, vLLM's most


class OpenAiModel:
    """Asks a chat model of a server; a LoRA adapter of a head is a model of its own there."""

    def __init__(self, address: str) -> None:
        """Keep who is asked.

        Args:
            address: ``openai:NAME@URL`` with the base address, usually ending in ``/v1``. NAME is a model of the
                server; with ``{head}`` in it, as in ``lrm-{head}``, each head asks the one of its name.

        Raises:
            ValueError: no such address.
        """
        self._model, _, url = address.removeprefix(PREFIX).rpartition("@")
        if not self._model or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"model '{address}' is no address; give {PREFIX}NAME@http://HOST:PORT/v1")
        self.name = address
        self._server = JsonServer(url.rstrip("/"), TIMEOUT_S, bearer(KEY))
        self._pool = ThreadPoolExecutor(AT_ONCE, "openai")  # kept, and each thread's connection with it

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query, in order, several at once; whatever goes wrong is Unscored with the reason.

        Raises:
            ValueError: unknown read-out.
        """
        if readout not in READOUTS:
            raise ValueError(f"unknown readout '{readout}'; choose one of {', '.join(READOUTS)}")
        end = time.monotonic() + TIMEOUT_S
        return list(self._pool.map(lambda query: self._answer(query, readout, end), queries))

    def _answer(self, query: RewardQuery, readout: str, end: float) -> Reward | Unscored:
        started = time.perf_counter()
        try:
            if query.head not in HEADS:
                raise NoAnswer(other_head(self.name, tuple(HEADS), query.head))
            head = HEADS[query.head]
            body = self._body(query, head)
            value, mass = self._ask(head, body, readout, end)
        except (NoAnswer, ValueError) as error:
            return Unscored(query.stamp_ns, query.head, as_line(f"{self.name}: {error}"))
        return Reward(query.stamp_ns, query.head, value, self.name, time.perf_counter() - started, mass)

    def _body(self, query: RewardQuery, head: Head) -> dict[str, Any]:
        """Return the head's question as a request."""
        content = [
            part
            if part["type"] == "text"
            else {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64," + b64encode(encode(part["image"], "png")).decode()},
            }
            for part in head.messages(query)[0]["content"]
        ]
        name = self._model.replace("{head}", head.name)
        return {"model": name, "messages": [{"role": "user", "content": content}], "temperature": 0.0}

    def _ask(self, head: Head, body: dict[str, Any], readout: str, end: float) -> tuple[float, float | None]:
        """Return the value of an answer and the mass of the head's candidates, if it was read."""
        if readout == "forward":
            return self._read(head, body, head.prefix, end)
        text = self._write(head, body, end)
        found = head.parse(text) if readout == "generate" else head.begun(text)
        if found is None:
            raise NoAnswer(f"the answer cannot be read: {text[:200]!r}")
        return (found, None) if isinstance(found, float) else self._read(head, body, found, end)

    def _write(self, head: Head, body: dict[str, Any], end: float) -> str:
        reply = self._server.post("/chat/completions", body | {"max_tokens": head.max_new_tokens}, end)
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise NoAnswer(f"the answer cannot be read: {str(text)[:200]!r}")
        if len(text) > _LONGEST * head.max_new_tokens:
            raise NoAnswer(
                f"the answer has {len(text)} characters, at most {head.max_new_tokens} tokens were asked for"
            )
        return text

    def _read(self, head: Head, body: dict[str, Any], begun: str, end: float) -> tuple[float, float]:
        """Return the expectation over a head's candidates, which go on from ``begun``, and their mass."""
        mass = dict.fromkeys(head.candidates, 1.0)
        for context, branches in places(head.candidates):
            found = self._next(body, begun + context, end)
            for branch in branches:
                share = sum(p for token, p in found if token and (branch.startswith(token) or token.startswith(branch)))
                for candidate in head.candidates:
                    if candidate.startswith(context + branch):
                        mass[candidate] *= share
        total = sum(mass.values())
        if not total >= LEAST_MASS:
            raise NoAnswer(
                f"the answers {', '.join(head.candidates[:2])}, ... have {total:.1g} probability together: it would "
                "say something else; use readout:=reason or generate, or a model that was trained to answer so"
            )
        values = dict(zip(head.candidates, head.values, strict=True))
        return sum(values[candidate] * p for candidate, p in mass.items()) / total, min(1.0, total)

    def _next(self, body: dict[str, Any], begun: str, end: float) -> list[tuple[str, float]]:
        """Return the likeliest next tokens of an answer that has begun, with their probabilities."""
        asked = body | {
            "messages": [*body["messages"], {"role": "assistant", "content": begun}],
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": _TOP,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        reply = self._server.post("/chat/completions", asked, end)
        try:
            top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = [(str(entry["token"]), math.exp(float(entry["logprob"]))) for entry in top]
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            raise NoAnswer("its reply has no probabilities (logprobs); use readout:=generate") from None
        if not all(0 <= p <= 1.001 for _, p in found) or sum(p for _, p in found) > 1.01:
            raise NoAnswer("its probabilities are none")
        return found


@lru_cache(maxsize=8)
def places(candidates: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Return where candidate answers part: what they share up to there, and the characters that come next.

    For 0.0, 0.1, ..., 1.0: at the start "0" or "1", after "0." a digit. Places where all go on alike are left out.
    """
    found: dict[str, set[str]] = {}
    for candidate in candidates:
        for length in range(len(candidate)):
            found.setdefault(candidate[:length], set()).add(candidate[length])
    return [(context, tuple(sorted(after))) for context, after in sorted(found.items()) if len(after) > 1]
