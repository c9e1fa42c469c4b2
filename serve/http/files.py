"""Pages of this package: their files are read once, and what a client names only ever picks one of them."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import RequestError, shown

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PACKAGE = Path(__file__).parents[1]


def file_routes(folder: str) -> list[Route]:
    """``/FOLDER/NAME`` for the files of a folder of this package, and ``/`` for its ``index.html`` where it has one."""
    files = {path.name: path.read_bytes() for path in (_PACKAGE / folder).iterdir() if path.suffix in KINDS}

    def sent(name: str) -> Response:
        if name not in files:
            raise RequestError(
                expected="a file of the page", got=shown(name), fix="open / instead", status=404, code="unknown_path"
            )
        return Response(files[name], media_type=KINDS[Path(name).suffix])

    async def index(_: Request) -> Response:
        return sent("index.html")

    async def file(request: Request) -> Response:
        return sent(request.path_params["name"])

    return [Route("/", index, methods=["GET"]), Route(f"/{folder}/{{name}}", file, methods=["GET"])]
