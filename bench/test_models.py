"""Every network of the registry on a photograph, against itself in plain PyTorch, eager and compiled."""

KIND = "network"


def test_network(prepared, row, time_row):
    time_row(prepared, row)
