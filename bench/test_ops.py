"""Every op on layers of real networks, against what people use today: groups are op x layer x dtype x layout."""

KIND = "op"


def test_op(prepared, row, time_row):
    time_row(prepared, row)
