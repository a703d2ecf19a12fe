"""The dashboard asks for what there is: its metric names and labels are those of the registry."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
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
    return asked + [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]


def labels_of(name: str) -> set[str]:
    metrics = Metrics()
    for collector in vars(metrics).values():
        for family in collector.describe() if hasattr(collector, "describe") else ():
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
