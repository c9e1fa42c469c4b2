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
        return json_reply({"answers": [_as_dict(one) for one in desk.all], "left_out": len(desk.left_out)})

    async def picture(request: Request) -> Response:
        number = _number(request)
        async with one_at_a_time:
            place = request.path_params.get("place", 0)
            return Response(await asyncio.to_thread(_shown, desk[number], place), media_type="image/jpeg")

    async def confirm(request: Request) -> Response:
        number = _number(request)
        body = read_object(await read_body(request, limits, kinds=("application/json",)), depth=limits.depth)
        answer = body.get("answer")
        seen = body.get("shown")
        if not isinstance(answer, str) or not set(body) <= {"answer", "shown"}:
            raise RequestError(
                expected='{"answer": "TEXT"}, perhaps with "shown"',
                got=shown(str(body)),
                fix="send the answer alone",
                param="answer",
            )
        async with one_at_a_time:
            if "shown" in body and seen != _state(now := desk[number]):
                raise RequestError(
                    expected=f"the answer to question {now.id} as it was shown here",
                    got=f"{shown(now.answer)}, {'confirmed' if now.confirmed else 'written'} elsewhere meanwhile",
                    fix="look at it again, and send yours if it is the right one",
                    status=409,
                    code="answer_changed",
                )
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
        Route("/answers/{number:int}/picture/{place:int}", picture, methods=["GET"]),
    ]


def _state(one: Confirmable) -> dict[str, Any]:
    """What a page has shown of an answer, as it says so when it sends another."""
    return {"answer": one.answer, "confirmed": one.confirmed}


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
        "pictures": [picture.name for picture in one.pictures],
        "scoring": list(one.scoring),
    }


def _shown(one: Confirmable, place: int) -> bytes:
    """The picture as a browser shows it: upright, of a kind that it knows, and no larger than a screen."""
    if place >= len(one.pictures):
        raise RequestError(
            expected="the number of a picture of the question",
            got=f"{place} of {len(one.pictures)}",
            fix="see /answers",
            status=404,
            code="unknown_path",
        )
    image = load_picture(one.pictures[place]).image.copy()
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()
