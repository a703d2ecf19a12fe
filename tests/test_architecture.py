"""The house rules, read from the source itself: imports run one way, names stay in their rooms, rooms stay small."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from proxy import errors
from proxy.errors import Failure
from proxy.providers.registry import KINDS

_ROOT = Path(__file__).parents[1]
_SOURCES = sorted((_ROOT / "proxy").rglob("*.py"))
_MAX_MODULE_LINES = 360
_MAY_BE_LONGER = {"proxy.errors": 420}  # the tree of errors is one piece
_MAX_FUNCTION_LINES = 45

# The rooms. Who may import whom: each from its own row and the rows below, and never in a circle.
_LAYERS = [
    {"proxy.__main__"},
    {"proxy.cli"},
    {"proxy.commands"},
    {"proxy.demo"},
    {"proxy.app"},
    {"proxy.api"},
    {"proxy.engine", "proxy.runtimes"},
    {"proxy.background"},
    {"proxy.generations"},
    {"proxy.jobs"},
    {"proxy.config"},
    {"proxy.accounts"},
    {"proxy.requests", "proxy.metrics"},
    {"proxy.state"},
    {"proxy.upstream"},
    {"proxy.providers"},
    {"proxy.pictures"},
    {"proxy.errors", "proxy.clock", "proxy.logs", "proxy.config_problems", "proxy.multipart", "proxy.dollars", "proxy"},
]
# Parts that stand beside the house: what they may import of it, and who may import them.
_BESIDE = {
    "proxy.server": ({"proxy.errors", "proxy.logs"}, {"proxy.cli", "proxy.commands", "proxy.demo"}),
    "proxy.simulator": ({"proxy.clock", "proxy.providers"}, {"proxy.demo"}),
}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


_MODULES = {_name(path): path for path in _SOURCES}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_MODULES[module].read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> frozenset[str]:
    """Return the full names of everything a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = inner & set(_MODULES)
            found |= submodules
            if len(submodules) < len(inner):
                found.add(node.module)
    return frozenset(found)


def _inside(module: str) -> frozenset[str]:
    return _imports(module) & set(_MODULES)


def _room(module: str) -> str:
    """Return the part of the house a module belongs to: itself, or its package."""
    top, *inner = module.split(".")
    return f"{top}.{inner[0]}" if inner else top


def _layer(room: str) -> int:
    return next(number for number, layer in enumerate(_LAYERS) if room in layer)


def test_every_module_has_its_place() -> None:
    placed = set().union(*_LAYERS) | set(_BESIDE)
    assert {_room(module) for module in _MODULES} == placed


@pytest.mark.parametrize("module", _MODULES)
def test_imports_run_one_way(module: str) -> None:
    room = _room(module)
    for imported in sorted({_room(imported) for imported in _inside(module)} - {room}):
        if room in _BESIDE:
            assert imported in _BESIDE[room][0], f"{module} may not import {imported}"
        elif imported in _BESIDE:
            assert room in _BESIDE[imported][1], f"{module} may not import {imported}"
        else:
            assert _layer(imported) >= _layer(room), f"{module} may not import {imported}, which stands above it"


def test_there_are_no_import_cycles() -> None:
    layered = list(TopologicalSorter({module: _inside(module) for module in _MODULES}).static_order())
    assert len(layered) == len(_MODULES)


def _importers(package: str) -> set[str]:
    return {
        module
        for module in _MODULES
        if any(name == package or name.startswith(f"{package}.") for name in _imports(module))
    }


def test_one_module_speaks_http_to_providers() -> None:
    for client in ("aiohttp", "httpx", "requests", "urllib.request", "http.client"):
        assert _importers(client) <= {"proxy.upstream.client"}, client
    assert _importers("aiohttp") == {"proxy.upstream.client"}
    assert _importers("aiohappyeyeballs") == {"proxy.upstream.addresses"}


def test_one_module_speaks_to_object_stores() -> None:
    assert _importers("obstore") == {"proxy.pictures.bucket"}


def test_the_web_framework_stays_at_the_surface() -> None:
    rooms = {_room(module) for module in _importers("starlette")}
    assert rooms <= {"proxy.api", "proxy.app", "proxy.commands", "proxy.server", "proxy.simulator"}


def test_the_server_stays_in_its_modules() -> None:
    assert {_room(module) for module in _importers("uvicorn")} == {"proxy.server"}


def test_the_simulator_witnesses_for_itself() -> None:
    borrowed = {name for module in _MODULES if _room(module) == "proxy.simulator" for name in _inside(module)}
    assert {name for name in borrowed if _room(name) == "proxy.providers"} == {"proxy.providers.checkpoints"}


def test_providers_are_pure_translators() -> None:
    for module in (name for name in _MODULES if _room(name) == "proxy.providers"):
        for forbidden in ("asyncio", "time", "socket", "threading", "random", "os", "logging"):
            assert forbidden not in _imports(module), f"{module} imports {forbidden}"
        assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(_tree(module)))


def _docstrings(tree: ast.Module) -> set[ast.expr]:
    """Return the texts that stand for themselves: docstrings, and those below constants."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _words(module: str) -> Iterator[str]:
    """Yield every identifier and every text of the code, its documentation left out."""
    tree = _tree(module)
    silent = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in silent:
            yield node.value
        for field in ("id", "attr", "name", "arg", "module", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value.lower()


def test_a_providers_name_occurs_only_in_its_own_rooms() -> None:
    names = {name for kind, own in KINDS.items() for name in (kind, kind.replace("-", "_"), own.key_env) if name}
    named = re.compile("|".join(map(re.escape, names)))
    rooms = {_room(module) for module in _MODULES if any(named.search(word) for word in _words(module))}
    # The defaults name their providers, and the demo plays them.
    assert rooms <= {"proxy.providers", "proxy.simulator", "proxy.config", "proxy.demo"}


@pytest.mark.parametrize("module", _MODULES)
def test_modules_and_functions_stay_small(module: str) -> None:
    assert len(_MODULES[module].read_text(encoding="utf-8").splitlines()) <= _MAY_BE_LONGER.get(
        module, _MAX_MODULE_LINES
    )
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < _MAX_FUNCTION_LINES, node.name


def _public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


@pytest.mark.parametrize("module", _MODULES)
def test_everything_public_is_documented(module: str) -> None:
    tree = _tree(module)
    assert tree.body == [] or ast.get_docstring(tree), module
    assert [node.name for node in _public(tree.body) if not ast.get_docstring(node)] == []


# --- errors -----------------------------------------------------------------------------------------------------------

_CALLER, _SERVER, _PICTURE = "invalid_request_error", "server_error", "image_generation_server_error"
_FAILURES: dict[str, tuple[int, str, str | None, bool]] = {  # docs/errors.md: status, type, code, x-should-retry
    "InvalidRequest": (400, _CALLER, "invalid_value", False),
    "InvalidJson": (400, _CALLER, "invalid_json", False),
    "NotAuthenticated": (401, _CALLER, None, False),
    "OriginNotAllowed": (403, _CALLER, "origin_not_allowed", False),
    "UnknownModel": (404, _CALLER, "model_not_found", False),
    "ModelNotAllowed": (403, _CALLER, "model_not_found", False),
    "PriceUnknown": (400, _CALLER, "price_unknown", False),
    "AdminOnly": (403, _CALLER, None, False),
    "NameTaken": (409, _CALLER, None, False),
    "NotFound": (404, _CALLER, None, False),
    "MethodNotAllowed": (405, _CALLER, None, False),
    "RequestTimeout": (408, _CALLER, "request_timeout", False),
    "RequestTooLarge": (413, _CALLER, "request_too_large", False),
    "UnsupportedContentEncoding": (415, _CALLER, "unsupported_content_encoding", False),
    "IdempotencyKeyReused": (422, _CALLER, "idempotency_key_reused", False),
    "HeadersTooLarge": (431, _CALLER, "headers_too_large", False),
    "RateLimited": (429, "rate_limit_error", "rate_limit_exceeded", True),
    "SpendLimitReached": (429, "insufficient_quota", "project_spend_limit_exceeded", False),
    "ServiceSpendLimitReached": (429, "insufficient_quota", "organization_spend_limit_exceeded", False),
    "Overloaded": (503, "service_unavailable_error", "server_is_overloaded", True),
    "StateUnavailable": (503, _SERVER, "state_unavailable", True),
    "NotConfigured": (503, _SERVER, "provider_not_configured", False),
    "ProviderFailure": (502, _SERVER, "internal_error", False),
    "ProviderBusy": (429, "rate_limit_error", "provider_busy", True),
    "ProviderUnavailable": (503, _SERVER, "provider_unavailable", True),
    "ProviderAuth": (502, _SERVER, "provider_auth", False),
    "ProviderRejected": (400, _CALLER, "provider_rejected", False),
    "ContentRefused": (400, "image_generation_user_error", "content_policy_violation", False),
    "SubmitOutcomeUnknown": (502, _SERVER, "submit_outcome_unknown", False),
    "UnknownCoding": (501, _CALLER, None, False),
    "AmbiguousTarget": (400, _CALLER, None, False),
    "ProviderBadResponse": (502, _SERVER, "provider_bad_response", False),
    "GenerationFailed": (502, _PICTURE, "image_generation_failed", False),
    "JobLost": (502, _PICTURE, "job_lost", False),
    "ProviderBadResult": (502, _PICTURE, "provider_bad_result", False),
    "GenerationPending": (504, "timeout_error", "generation_pending", True),
    "GenerationTimeout": (504, "timeout_error", "generation_timeout", False),
    "InternalError": (500, _SERVER, "internal_error", False),
}


def _descendants(kind: type[Failure]) -> Iterator[type[Failure]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def test_the_tree_of_failures_is_the_documented_table() -> None:
    tree = {kind for kind in _descendants(Failure) if kind.__module__ == errors.__name__}
    assert {kind.__name__: (kind.status, kind.type, kind.code, kind.should_retry) for kind in tree} == _FAILURES


def test_failures_elsewhere_look_like_one_of_the_tree() -> None:
    for module in _MODULES:
        if module != "proxy.__main__":
            importlib.import_module(module)
    for kind in (kind for kind in _descendants(Failure) if kind.__module__ in _MODULES):
        assert (kind.status, kind.type, kind.code, kind.should_retry) in _FAILURES.values(), kind


def test_the_manual_says_the_same() -> None:
    text = (_ROOT / "docs/errors.md").read_text(encoding="utf-8")
    written: set[tuple[int, str, str | None, bool]] = set()
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if len(cells) != 5 or not cells[1][:1].isdigit():
            continue
        _, statuses, kind, codes, retry = cells
        for status in statuses.split(", "):
            for code in codes.split(", "):
                written.add((int(status), kind, None if code == "null" else code, retry.strip("*").startswith("yes")))
    concrete = {row for name, row in _FAILURES.items() if name != "ProviderFailure"}
    assert concrete <= written
    assert {row[:2] for row in written} == {row[:2] for row in concrete}


@pytest.mark.parametrize("name", [name for name, row in _FAILURES.items() if row[0] == 401])
def test_a_refused_key_names_the_way_in(name: str) -> None:
    failure = getattr(errors, name)("No.", code="invalid_api_key")
    assert failure.headers == {"www-authenticate": "Bearer"}
    assert failure.code == "invalid_api_key"


def test_every_failure_has_all_four_words_of_the_envelope() -> None:
    about_models = ("UnknownModel", "ModelNotAllowed", "PriceUnknown")
    for name in _FAILURES:
        kind = getattr(errors, name)
        failure = kind() if name == "InternalError" else kind("In plain words.")
        assert set(failure.body()["error"]) == {"message", "type", "param", "code"}
        assert failure.body()["error"]["message"]
        assert failure.body()["error"]["param"] == ("model" if name in about_models else None)
