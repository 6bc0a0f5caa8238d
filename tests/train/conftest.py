"""``fastcnn train`` as the tests call it."""

import pytest

from fastcnn.cli import main


@pytest.fixture
def run(capsys, tmp_path):
    """The command's exit status, output and errors, in a folder of its own."""

    def call(*arguments, out=tmp_path / "run"):
        try:
            status = main(["train", *arguments, "--out", str(out), "--plain"])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call
