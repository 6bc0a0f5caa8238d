"""The table of ops: for each, what it is called with, what it is compared with, and what peers there are.

Tests and benches read the same rows, so an op gets the whole contract suite and its benches by a file of its name here.
"""

from __future__ import annotations

import importlib

from fastcnn import ops
from fastcnn.testing.spec import OpSpec

SPECS: dict[str, OpSpec] = {name: importlib.import_module(f"fastcnn.testing.specs.{name}").SPEC for name in ops.__all__}
