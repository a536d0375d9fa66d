"""The description of the interface is valid, and lists what is served: no more, no less."""

import re

from openapi_spec_validator import validate

from supervisor.gateway import batches, pages, pool
from supervisor.gateway.openapi import document
from tests.gateway.web import Web


def test_it_is_valid() -> None:
    validate(document())


def test_it_lists_what_is_served() -> None:
    described = {(method.upper(), path) for path, found in document()["paths"].items() for method in found}
    served = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in [*pages.ROUTES, *pool.ROUTES, *batches.ROUTES]
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == served


def test_it_is_served(web: Web) -> None:
    assert web.get("/openapi.json").json == document()
