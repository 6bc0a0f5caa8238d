"""Smaller files of networks: pruning, shared weights, Huffman coding (Deep Compression), low-rank linear layers.

Everything works on any :class:`torch.nn.Module` or state dict, and needs torch and numpy only::

    prune(model, 0.67)                      # and train, with the zeros kept
    share_weights(model, 6)                 # and train the shared values
    Path("model.fcnn").write_bytes(compress(model, 6))
    model.load_state_dict(decompress("model.fcnn"), strict=True)
"""

from fastcnn.compress.deep_compression import compress, decompress
from fastcnn.compress.low_rank import factorize_linear
from fastcnn.compress.report import ALEXNET_BYTES, Sizes, TensorSize, sizes
from fastcnn.compress.training import make_permanent, prune, share_weights

__all__ = [
    "ALEXNET_BYTES",
    "Sizes",
    "TensorSize",
    "compress",
    "decompress",
    "factorize_linear",
    "make_permanent",
    "prune",
    "share_weights",
    "sizes",
]
