"""``/answers`` and their pictures: what the page shows, and what a person decides there."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...runtime.pictures.picture import load_picture
from ..errors import RequestError, shown
from ..http.bodies import read_body
from ..http.plain import json_reply
from ..requests.json_body import read_object
from ..settings import Limits
from .interface import Confirmable, Desk

LARGEST = 1600
"""Pixels of a picture's longer side on the page."""


def answer_routes(desk: Desk, limits: Limits) -> list[Route]:
    """The paths. One thing at a time: a picture takes up to 300 MB, and answers are written in order."""
    one_at_a_time = asyncio.Lock()

    async def listed(_: Request) -> Response:
        return json_reply({"answers": [_as_dict(one) for one in desk.all]})

    async def picture(request: Request) -> Response:
        number = _number(request)
        async with one_at_a_time:
            return Response(await asyncio.to_thread(_shown, desk[number]), media_type="image/jpeg")

    async def confirm(request: Request) -> Response:
        number = _number(request)
        body = read_object(await read_body(request, limits, kinds=("application/json",)), depth=limits.depth)
        answer = body.get("answer")
        if not isinstance(answer, str) or set(body) != {"answer"}:
            raise RequestError(
                expected='{"answer": "TEXT"}', got=shown(str(body)), fix="send the answer alone", param="answer"
            )
        async with one_at_a_time:
            return json_reply(_as_dict(await asyncio.to_thread(desk.confirm, number, answer)))

    def _number(request: Request) -> int:
        number: int = request.path_params["number"]
        if number not in {one.number for one in desk.all}:
            raise RequestError(
                expected="the number of a question",
                got=str(number),
                fix="see /answers",
                status=404,
                code="unknown_path",
            )
        return number

    return [
        Route("/answers", listed, methods=["GET"]),
        Route("/answers/{number:int}", confirm, methods=["POST"]),
        Route("/answers/{number:int}/picture", picture, methods=["GET"]),
    ]


def _as_dict(one: Confirmable) -> dict[str, Any]:
    return {
        "number": one.number,
        "id": one.id,
        "picture": one.picture.name if one.picture is not None else None,
        "question": one.question,
        "answer": one.answer,
        "confirmed": one.confirmed,
        "drafted_by": one.drafted_by,
        "blind": one.blind,
    }


def _shown(one: Confirmable) -> bytes:
    """The picture as a browser shows it: upright, of a kind that it knows, and no larger than a screen."""
    if one.picture is None:
        raise RequestError(
            expected="a question about a picture",
            got="one without",
            fix="ask for none",
            status=404,
            code="unknown_path",
        )
    image = load_picture(one.picture).image.copy()
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()
