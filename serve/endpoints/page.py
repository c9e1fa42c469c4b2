"""The page at ``/``: files of this package and nothing else."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import RequestError, shown
from .service import Service

FOLDER = Path(__file__).parents[1] / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_routes(_: Service) -> list[Route]:
    """The paths of the page. Its files are read once; what a client names only ever picks one of them."""
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in KINDS}

    def sent(name: str) -> Response:
        if name not in files:
            raise RequestError(
                expected="a file of the page",
                got=shown(name),
                fix="open / instead",
                status=404,
                code="unknown_path",
            )
        return Response(files[name], media_type=KINDS[Path(name).suffix])

    async def index(_: Request) -> Response:
        return sent("index.html")

    async def file(request: Request) -> Response:
        return sent(request.path_params["name"])

    return [Route("/", index, methods=["GET"]), Route("/page/{name}", file, methods=["GET"])]
