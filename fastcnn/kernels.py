"""The Triton kernels, in a checkout that is not installed: there they lie beside this package, not inside it.

An installed fastcnn has the folder ``kernels/`` as its subpackage, which Python prefers to this module.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent.parent / "kernels")]
