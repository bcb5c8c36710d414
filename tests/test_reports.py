"""The page on a sweep: complete, escaped, and in need of nothing else."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

import flowsim as fs
from flowsim.analysis import classify
from flowsim.cli import main


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    import conftest

    folder = tmp_path_factory.mktemp("reports") / "<script>"
    grid = {"scaling.gamma": [0.75, 1.25], "network.width": [20, 40], "seeds": 2}
    fs.sweep(conftest.QUICK, folder, grid=grid, workers=1)
    (folder / "runs" / "<b>bad.h5").write_bytes(b"no run")
    output = folder.parent / "report.html"
    assert main(["sweep", "report", str(folder), "-o", str(output), "--quiet"]) == 0
    return folder, output.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects tags, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.all.add(tag)
        self.references += [v for k, v in attributes if k in ("src", "href") and v]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_whole_and_needs_nothing_else(page):
    tags = Tags()
    tags.feed(page[1])
    assert not tags.open and not tags.all & {"script", "link", "iframe", "b"}
    assert len(tags.references) == 4, "a map for each group of weights, and the intervals"
    for reference in tags.references:
        kind, _, data = reference.partition(",")
        assert kind == "data:image/svg+xml;base64"
        image = base64.b64decode(data, validate=True)
        assert image.rstrip().endswith(b"</svg>") and b"<script" not in image


def test_names_of_files_are_escaped(page):
    folder, text = page
    assert "<" in folder.name and "Sweep &lt;script&gt;" in text
    assert "&lt;b&gt;bad.h5" in text and "<b>" not in text


def test_it_says_what_was_found(page):
    folder, text = page
    assert "8 runs: 8 done, 0 failed, 0 running, 0 open" in re.sub(r"\s+", " ", text)
    for point in classify(folder / "runs").points:
        for verdict in point.layers.values():
            assert f"<td>{verdict.slope:.4g}</td>" in text
            assert f'class="{verdict.regime}"' in text
    assert "stop_loss = 0.001" in text and "of one core" in text


def test_it_wants_a_sweep(page, tmp_path, capsys):
    assert main(["sweep", "report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    output = page[0].parent / "report.html"
    assert main(["sweep", "report", str(page[0]), "-o", str(output)]) == 2
    assert "--overwrite" in capsys.readouterr().err
