"""The page at ``/``: files of this package and nothing else."""

from __future__ import annotations

from starlette.routing import Route

from ..http.files import file_routes
from .service import Service

FOLDER = "page"


def page_routes(_: Service) -> list[Route]:
    """The paths of the page."""
    return file_routes(FOLDER)
