"""docs/accuracy.md and its plot: from the reports that it names, and from nothing else."""

import re
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fastcnn.cli import main
from fastcnn.models import list_models
from fastcnn.models._lectures import LECTURES
from fastcnn.models._lectures_accuracy import ACCURACIES
from fastcnn.testing import accuracy
from fastcnn.testing.benches import SELECTIONS
from fastcnn.testing.environment import environment
from fastcnn.testing.reports import read_report, to_json

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def report(*changes):
    """Of a network that takes 2 ms, once for each of the changes."""
    entry = dict(kind="network", subject="alexnet", layer="batch 1", dtype="float32", direction="forward")
    results = [{**entry, "rows": {"fastcnn": {"median": 2e-3}}, **change} for change in changes]
    made = {"command": "fastcnn bench", "image": "noise", "left_out": [], "environment": environment()}
    return {**made, "results": results}


@pytest.fixture
def few(monkeypatch):
    """Accuracies of networks that are quick to count."""
    chosen = [a for a in ACCURACIES if a.network in ("alexnet", "squeezenet1_0", "mobilenet_v1_x0_5")]
    monkeypatch.setattr(accuracy, "ACCURACIES", chosen)


def drawn(text):
    """The labels of a plot, and where its points are."""
    root = ElementTree.fromstring(text)
    labels = [element.text for element in root.iter(f"{SVG}text")]
    places = [(float(element.get("x")), float(element.get("y"))) for element in root.iter(f"{SVG}use")]
    return labels, places


def test_figures_are_of_networks_and_lines_of_lectures():
    assert {a.network for a in ACCURACIES} <= set(list_models())
    assert len({(a.network, a.side) for a in ACCURACIES}) == len(ACCURACIES)
    for a in ACCURACIES:
        assert 50 < a.top1 < 85 and re.fullmatch(r"\d{3}:\d+", a.line) and a.line[:3] in LECTURES
    assert len(set(SELECTIONS["quoted"])) == len(SELECTIONS["quoted"])
    assert "vgg16" in SELECTIONS["quoted"] and "dpn131" not in SELECTIONS["quoted"], "that is measured at another size"


def test_points_are_what_was_measured_at_that_size(few):
    timed = report({"subject": "mobilenet_v1_x0_5"}, {"layer": "batch 16"}, {"direction": "forward+backward"})
    found = {point.label: point for point in accuracy.points([timed])}
    assert list(found) == ["mobilenet_v1_x0_5 160x160", "mobilenet_v1_x0_5", "alexnet", "squeezenet1_0"]
    assert {label for label, point in found.items() if point.seconds} == {"mobilenet_v1_x0_5"}
    assert found["mobilenet_v1_x0_5"].seconds == 2e-3 and found["mobilenet_v1_x0_5 160x160"].macs == 76_524_800
    page = accuracy.accuracy_page("here/plot.svg", {"x.json": timed})
    assert "| `mobilenet_v1_x0_5` | 63.7 | 000, 637 | 149,497,088 | 2.00 ms |" in page and "](plot.svg)" in page


@pytest.mark.parametrize("change", [{"layer": "batch 16"}, {"kind": "op"}, {"subject": "resnet18"}, {"rows": {}}])
def test_reports_without_a_time_are_refused(few, change):
    with pytest.raises(ValueError, match="--model quoted"):
        accuracy.points([report(change)])


def test_the_plot_is_the_same_each_time(few):
    pytest.importorskip("matplotlib")
    text = accuracy.plot_svg([report({}, {"subject": "squeezenet1_0"})])
    assert text == accuracy.plot_svg([report({}, {"subject": "squeezenet1_0"})])
    labels, places = drawn(text)
    assert labels.count("alexnet") == labels.count("squeezenet1_0") == 2 and labels.count("mobilenet_v1_x0_5") == 1
    assert len(places) > 6


def test_labels_hide_neither_points_nor_each_other():
    labels = [f"network_{i}" for i in range(12)]
    places = [(300.0 + 7 * (i % 4), 200.0 + 5 * (i // 4)) for i in range(12)]
    boxes = []
    for label, (x, y), (dx, dy) in zip(labels, places, accuracy._offsets(labels, places), strict=True):
        width, left = 0.62 * accuracy._FONT * len(label), x + dx
        boxes.append((left if dx > 0 else left - width, left + width if dx > 0 else left, y + dy))
    assert not any(low < x < high and abs(y - middle) < 3 for low, high, middle in boxes for x, y in places)
    for one, other in combinations(boxes, 2):
        assert one[1] <= other[0] or other[1] <= one[0] or abs(one[2] - other[2]) >= accuracy._FONT


@pytest.mark.long
@pytest.mark.xdist_group("lectures")  # Whose worker has counted these networks.
def test_the_page_and_the_plot_are_made_of_the_reports_they_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(ROOT)
    page = Path("docs/accuracy.md").read_text()
    svg, *names = re.search(r"`fastcnn bench --plot ([^`]+)`", page)[1].split()
    found = {name: read_report(name) for name in names}
    assert page == accuracy.accuracy_page(svg, found)
    assert main(["bench", "--plot", str(tmp_path / "plot.svg"), *names]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == page.splitlines()[-3:]
    # Not the text: another matplotlib may write the same in other words.
    labels, places = drawn((tmp_path / "plot.svg").read_text())
    committed_labels, committed_places = drawn(Path(svg).read_text())
    assert labels == committed_labels and len(places) == len(committed_places)
    for one, other in zip(places, committed_places, strict=True):
        assert one == pytest.approx(other, abs=0.5)


@pytest.mark.parametrize(
    "files, shown",
    [
        (["plot.png", "x.json"], ".svg file and reports to make it of, got plot.png x.json"),
        (["plot.svg"], "got plot.svg"),
        (["x.json", "plot.svg"], "got x.json plot.svg"),
        (["plot.svg", "missing.json"], "missing.json"),
        (["nowhere/plot.svg", "x.json"], "nowhere"),
    ],
)
def test_errors_are_one_line_and_write_nothing(few, tmp_path, monkeypatch, capsys, files, shown):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    text = to_json(report({}))
    Path("x.json").write_text(text)
    assert main(["bench", "--plot", *files]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and shown in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"] and Path("x.json").read_text() == text


def test_the_extra_is_named(few, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"fastcnn\[plots\]"):
        accuracy.plot_svg([report({})])
