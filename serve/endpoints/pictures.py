"""``/v1/pictures``: upload a picture once, see what the model will see, and ask about it by its hash."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.overlay import draw_overlay
from ...runtime.pictures.picture import load_picture
from ...runtime.pictures.tiles import Layout, cut_tiles, lay_out, layout_entry
from ..errors import RequestError, shown
from ..http.bodies import read_body
from ..http.plain import json_reply
from ..requests.fields import Fields
from ..requests.pictures import find_upload
from ..requests.sampling import read_share
from .service import Service

KINDS = ("image/*", "application/octet-stream")


def picture_routes(service: Service) -> list[Route]:
    """The paths about pictures."""
    limits = service.settings.limits
    one_at_a_time = asyncio.Semaphore(1)  # an opened picture takes up to 300 MB

    def measured(name: str, data: bytes, wanted: _Wanted) -> dict[str, Any]:
        return {"id": name, **layout_entry(wanted.layout(load_picture(data).size), wanted.geometry)}

    async def upload(request: Request) -> Response:
        wanted = _wanted(service, request)
        async with uploading:
            data = await read_body(request, limits, kinds=KINDS, largest=limits.picture)
            async with one_at_a_time:
                about = await asyncio.to_thread(measured, "", data, wanted)
        return json_reply({**about, "id": service.uploads.add(data)})

    async def show(request: Request) -> Response:
        wanted = _wanted(service, request)
        name = request.path_params["name"]
        data = find_upload(name, "id", service.uploads.find)
        async with one_at_a_time:
            return json_reply(await asyncio.to_thread(measured, name, data, wanted))

    async def tiles(request: Request) -> Response:
        wanted = _wanted(service, request)
        data = find_upload(request.path_params["name"], "id", service.uploads.find)
        async with one_at_a_time:
            return Response(await asyncio.to_thread(_drawn, data, wanted), media_type="image/png")

    uploading = asyncio.Semaphore(4)
    return [
        Route("/v1/pictures", upload, methods=["POST"]),
        Route("/v1/pictures/{name}/tiles.png", tiles, methods=["GET"]),
        Route("/v1/pictures/{name}", show, methods=["GET"]),
    ]


@dataclass(frozen=True)
class _Wanted:
    """The geometry of the model that the query names, whether the overview alone is wanted, and what is kept."""

    geometry: Geometry
    low: bool
    picture_tokens: int | str | None

    def layout(self, size: tuple[int, int]) -> Layout:
        return lay_out(size, self.geometry, overview_only=self.low, picture_tokens=self.picture_tokens)


def _wanted(service: Service, request: Request) -> _Wanted:
    detail = request.query_params.get("detail", "high")
    if detail not in ("high", "low", "auto", "original"):
        raise RequestError(
            expected="one of high, low, auto, original as detail", got=shown(detail), fix="correct it", param="detail"
        )
    entry = service.models.find(request.query_params.get("model"))
    kept = read_share(Fields(dict(request.query_params))) or service.settings.picture_tokens
    return _Wanted(entry.facts.geometry, (service.settings.detail or detail) == "low", kept)


def _drawn(data: bytes, wanted: _Wanted) -> bytes:
    picture = load_picture(data)
    layout, geometry = wanted.layout(picture.size), wanted.geometry
    if layout.grid == (0, 0):
        drawing = Image.fromarray(cut_tiles(picture.image, layout, geometry)[0].transpose(1, 2, 0))
    else:
        drawing = draw_overlay(picture.image, layout, geometry)
    file = io.BytesIO()
    drawing.save(file, format="PNG")
    return file.getvalue()
