"""Detectors on a photograph, to boxes: fused, unfused, in PyTorch, with reference ops; and eight images at once."""

KIND = "detector"


def test_detector(prepared, row, time_row):
    time_row(prepared, row)
