"""What is handed to Prometheus: it can be read, asks for what there is, and each alert fires when it should."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.app import ROUTES
from tests.test_dashboard import FROM_THE_SCRAPE, NAME, SELECTION, labels_of, samples

_ROOT = Path(__file__).parents[1]
_RULES = _ROOT / "deploy/prometheus-alerts.yml"
_CASES = _ROOT / "tests/prometheus-alerts.test.yml"
_QUESTIONS = dict(re.findall(r"- alert: (\w+)\n +expr: (.+)\n", _RULES.read_text(encoding="utf-8")))
_MAKES_PICTURES = re.compile(r"/v1/(images/\w+|chat/completions|responses)|/sdapi/v1/(txt|img)2img")

_needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on the PATH; Debian's package 'prometheus' has it"
)


def _promtool(*arguments: str, folder: Path) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@_needs_promtool
def test_prometheus_reads_the_rules() -> None:
    _promtool("check", "rules", "--lint=all", "--lint-fatal", _RULES.name, folder=_RULES.parent)


@_needs_promtool
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    _promtool("test", "rules", _CASES.name, folder=_CASES.parent)


@_needs_promtool
def test_prometheus_reads_the_configuration_in_the_manual(tmp_path: Path) -> None:
    page = (_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```yaml\n(rule_files: .*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(snippet, encoding="utf-8")
    shutil.copy(_RULES, tmp_path)
    _promtool("check", "config", "prometheus.yml", folder=tmp_path)


def test_there_are_six_alerts_each_tried_and_told() -> None:
    assert len(_QUESTIONS) == 6
    assert set(re.findall(r"alertname: (\w+)", _CASES.read_text(encoding="utf-8"))) == set(_QUESTIONS)
    page = (_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(ImagesProxy\w+)` \|", page, re.MULTILINE) == list(_QUESTIONS)


@pytest.mark.parametrize("question", _QUESTIONS.values(), ids=_QUESTIONS)
def test_an_alert_asks_for_metrics_and_labels_that_exist(question: str) -> None:
    assert set(NAME.findall(question)) <= samples()
    for name, selection in SELECTION.findall(question):
        assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", selection)) <= labels_of(name) | FROM_THE_SCRAPE


def test_every_route_that_makes_pictures_counts_as_a_request_for_pictures() -> None:
    making = {
        route.name for route in ROUTES if "POST" in (route.methods or ()) and _MAKES_PICTURES.fullmatch(route.path)
    }
    counted = re.findall(r'route=~"([\w|]+)"', _QUESTIONS["ImagesProxyRequestsFail"])
    assert len(counted) == 2
    assert all(making <= set(routes.split("|")) for routes in counted)
