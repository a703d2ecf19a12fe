"""The dashboard asks for what there is: its metric names and labels are those of the registry."""

import copy
import importlib
import json
import re
from collections.abc import Iterator
from enum import Enum
from importlib.resources import files
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from proxy.metrics import Metrics

DASHBOARD: dict[str, Any] = json.loads((files("proxy") / "dashboard.json").read_text())
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}
NAME = re.compile(r"images_proxy_\w+")
SELECTION = re.compile(r"(images_proxy_\w+)\{([^}]*)\}")
BY = re.compile(r"by \(([^)]*)\)")
FROM_THE_SCRAPE = {"instance", "job", "le"}


def families() -> list[Metric]:
    return list(Metrics().registry.collect())


def samples() -> set[str]:
    return {family.name + suffix for family in families() for suffix in SUFFIXES[family.type]}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def questions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    variables = DASHBOARD["templating"]["list"]
    return asked + [variable["query"]["query"] for variable in variables if variable["type"] == "query"]


def labels_of(name: str) -> set[str]:
    for collector in Metrics().registry._collector_to_names:
        assert isinstance(collector, MetricWrapperBase)
        for family in collector.describe():
            if name in {family.name + suffix for suffix in SUFFIXES[family.type]}:
                return set(collector._labelnames)
    return {"version", "python"} if name == "images_proxy_build_info" else set()


@pytest.mark.parametrize("question", questions())
def test_a_panel_asks_for_metrics_that_exist(question: str) -> None:
    names = set(NAME.findall(question))
    assert names
    assert names <= samples()


@pytest.mark.parametrize("question", questions())
def test_a_panel_selects_and_groups_by_labels_that_exist(question: str) -> None:
    for name, selection in SELECTION.findall(question):
        selected = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", selection))
        assert selected <= labels_of(name) | FROM_THE_SCRAPE
        grouped = {label.strip() for group in BY.findall(question) for label in group.split(",")}
        assert grouped <= labels_of(name) | FROM_THE_SCRAPE


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(questions())
    assert [family.name for family in families() if f"{family.name}" not in asked] == []


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    sources = [panel["datasource"]["uid"] for panel in panels() if panel["type"] != "row"]
    assert set(sources) == {"${datasource}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance", "provider"]
    assert not re.search(r"https?://", json.dumps(DASHBOARD))


# --- Grafana's own schema ---------------------------------------------------------------------------------------


def lost(ours: Any, read: Any, place: str = "dashboard") -> Iterator[str]:
    """Yield the places of what is in our file and not in what Grafana's types have read from it."""
    if isinstance(ours, dict) and isinstance(read, dict):
        for key, value in ours.items():
            yield from lost(value, read[key], f"{place}.{key}") if key in read else [f"{place}.{key}"]
    elif isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        for number, (one, other) in enumerate(zip(ours, read, strict=True)):
            yield from lost(one, other, f"{place}[{number}]")
    elif ours != read:
        yield place


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as JSON has types."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Union:
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(each, inner[1]) for each in value.values())
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, hint) or value in {each.value for each in hint}
    if hint is Any or hint is object:
        return True
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def mistyped(read: Any, place: str = "dashboard") -> Iterator[str]:
    """Yield the places at which a value is not of the type that Grafana's schema gives it."""
    if isinstance(read, list | dict):
        for key, value in read.items() if isinstance(read, dict) else enumerate(read):
            yield from mistyped(value, f"{place}[{key}]")
    elif type(read).__module__.startswith("grafana_") and not isinstance(read, Enum):
        for name, hint in get_type_hints(type(read)).items():
            value = getattr(read, name)
            if not fits(value, hint):
                yield f"{place}.{name}: {value!r}"
            yield from mistyped(value, f"{place}.{name}")


def against_the_schema(dashboard: Any) -> list[str]:
    """Return what is wrong with a dashboard by the types that Grafana generates from its schema.

    https://github.com/grafana/grafana-foundation-sdk
    """
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="grafana-foundation-sdk is missing")
    # Else queries and the panels' own options would be read as anything.
    importlib.import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    encoder = importlib.import_module("grafana_foundation_sdk.cog.encoder").JSONEncoder()
    read = models.Dashboard.from_json(dashboard)
    return [*lost(dashboard, json.loads(encoder.encode(read))), *mistyped(read)]


def test_the_dashboard_follows_grafanas_schema() -> None:
    assert against_the_schema(DASHBOARD) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("graphToolTip",), 1),
        (("schemaVersion",), "41"),
        (("time", "until"), "now"),
        (("panels", 1, "gridPos", "w"), "4"),
        (("panels", 1, "targets", 0, "expression"), "up"),
        (("panels", 1, "fieldConfig", "defaults", "units"), "s"),
        (("panels", 9, "options", "legend", "showLegend"), "yes"),
        (("templating", "list", 1, "includeAll"), 1),
    ],
)
def test_a_slip_would_be_noticed(place: tuple[str | int, ...], value: object) -> None:
    dashboard = copy.deepcopy(DASHBOARD)
    inner: Any = dashboard
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert against_the_schema(dashboard) != []


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells
