# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: routes and their errors. One process, one model."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lrm_ros import __version__
from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.serve import upstream
from lrm_ros.reward.serve.score import ScoreReply, ScoreRequest, as_answer, read_request
from lrm_ros.reward.serve.service import Gone, Refused, Service
from lrm_ros.types import RewardQuery, Unscored

log = logging.getLogger("lrm_ros.serve")
CLIENT_GONE = 499  # nobody reads it


def create_app(service: Service) -> FastAPI:
    """Return the application of a service; requests have passed the guard (``guard.py``) before."""
    app = FastAPI(
        title="lrm_ros reward server",
        version=__version__,
        description="Rewards of a Large Reward Model. /v1/score takes batches; the other POST routes are upstream's.",
    )
    config = service.config
    decoder = upstream.Decoder(config.max_pixels, config.max_images, config.max_text)
    _handle_errors(app)
    _watch(app, service)
    _serve_upstream(app, service, decoder)

    @app.post("/v1/score", response_model=ScoreReply, response_model_exclude_none=True)
    async def score(request: Request, body: ScoreRequest) -> Any:
        """Judge many queries in one batch; one bad query or image leaves the others alone."""
        asked = await service.decode(read_request, body, config, decoder)
        good = [query for query in asked if isinstance(query, RewardQuery)]
        answers = iter(
            await service.judge(good, body.readout or config.readout, body.timeout_s, _gone(request)) if good else []
        )
        found = [query if isinstance(query, Unscored) else next(answers) for query in asked]
        return {"model": config.model, "answers": [as_answer(answer) for answer in found]}

    return app


def _serve_upstream(app: FastAPI, service: Service, decoder: upstream.Decoder) -> None:
    config: ServeConfig = service.config

    async def one(request: Request, decode: Callable[..., list[RewardQuery]], *arguments: Any) -> dict[str, Any]:
        queries = await service.decode(decode, *arguments)
        answers = await service.judge(queries, config.readout, config.timeout_s, _gone(request))
        return upstream.answer(queries[0], answers[0])

    @app.post("/compute_completion", tags=["upstream"])
    async def compute_completion(request: Request, body: upstream.CompletionRequest) -> dict[str, Any]:
        """Whether the task is done: score 0 or 1, ``completed``."""
        return await one(request, decoder.completion, body)

    @app.post("/compute_reward", tags=["upstream"])
    async def compute_reward(request: Request, body: upstream.RewardRequest) -> dict[str, Any]:
        """Progress: score in [0, 1]."""
        return await one(request, decoder.reward, body)

    @app.post("/compute_comparison", tags=["upstream"])
    async def compute_comparison(request: Request, body: upstream.ComparisonRequest) -> dict[str, Any]:
        """Which of two images is closer to the goal: score 1 for B, -1 for A."""
        return await one(request, decoder.comparison, body)

    @app.post("/compute_rewards_batch", tags=["upstream"])
    async def compute_rewards_batch(request: Request, body: upstream.BatchRequest) -> dict[str, Any]:
        """Progress of several images; fails as a whole if one of them is unscored, for it has no word for that."""
        queries = await service.decode(decoder.batch, body)
        answers = await service.judge(queries, config.readout, config.timeout_s, _gone(request))
        results = [upstream.answer(query, given) for query, given in zip(queries, answers, strict=True)]
        return {"success": True, "results": results}

    for head in ("roboreward", "robometer", "topreward"):
        _serve_video(app, head, decoder, one)


def _serve_video(
    app: FastAPI, head: str, decoder: upstream.Decoder, one: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    @app.post(f"/compute_{head}", tags=["upstream"], summary=f"The episode so far, by {head}: score in [0, 1]")
    async def compute(request: Request, body: upstream.VideoRequest) -> dict[str, Any]:
        return await one(request, decoder.video, head, body)


def _watch(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["watch"])
    async def health() -> dict[str, Any]:
        """The process lives; upstream's keys."""
        return {"status": "healthy", "model_loaded": service.batcher is not None, "adapters": list(service.heads)}

    @app.get("/ready", tags=["watch"])
    async def ready() -> dict[str, Any]:
        """200 when a request would be judged now, else 503: the model is being loaded, or the queue is full."""
        batcher = service.batcher
        if batcher is None:
            raise Refused(503, f"model '{service.config.model}' is being loaded")
        if batcher.waiting >= batcher.max_waiting:
            raise Refused(503, f"{batcher.waiting} queries wait")
        return {"ready": True, "model": batcher.name, "waiting": batcher.waiting}

    @app.get("/metrics", tags=["watch"])
    async def metrics() -> Response:
        """Counters and times in Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _handle_errors(app: FastAPI) -> None:
    """Every error is JSON with its reason, in upstream's words."""

    def said(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"success": False, "error": reason}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return said(error.status, str(error), error.headers)

    @app.exception_handler(Gone)
    async def gone(_: Request, error: Gone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Without the input: that may be a picture, or a number that JSON has no word for.
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return said(422, f"{where or 'body'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        return said(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("%s: %s: %s", request.url.path, type(error).__name__, error)
        return said(500, f"{type(error).__name__}: {error}")


def _gone(request: Request) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a function that returns when the client has gone."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return wait
