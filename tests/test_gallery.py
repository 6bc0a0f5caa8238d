"""docs/gallery.md: its commands are those that there are, and its pictures are where it says."""

import re
import shlex
from pathlib import Path

import pytest

from fastcnn.cli import _parser
from fastcnn.train import find_recipe

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "gallery.md").read_text()
SHELL = re.sub(r"\\\n\s*", "", PAGE)
COMMANDS = [line.split(";")[0].strip() for line in SHELL.splitlines() if line.startswith("    fastcnn ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_can_be_typed(command):
    options = _parser().parse_args(shlex.split(command)[1:])
    assert options.command in ("scenes", "train", "detect", "segment", "visualize", "upscale")
    if options.command == "train":
        assert find_recipe(options.recipe)


def test_each_picture_is_there_and_was_written_by_a_command():
    pictures = re.findall(r'<img src="gallery/([^"]+)"', PAGE)
    assert len(pictures) == len(set(pictures)) >= 6
    assert sorted(path.name for path in (DOCS / "gallery").iterdir()) == sorted(pictures)
    for name in pictures:
        assert f"docs/gallery/{name}" in PAGE, f"no command writes {name}"
