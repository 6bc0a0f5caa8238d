"""Compresses SqueezeNet and AlexNet as table 2 of the SqueezeNet paper does, and sets the bytes beside the paper's.

Weights are random, of a seed, and not trained: the bytes are those of the papers' densities and bit widths, and nothing
here says anything of accuracy. Densities, the shares of weights that pruning keeps, are those of Iandola et al.,
SqueezeNet, 2016, table 1 (what it calls a sparsity of 33 % is what is kept: 421,098 of 1,248,424 parameters), and of
Han et al., Deep Compression, 2016, table 4. A MB is 10^6 bytes. Run: ``python examples/compress_squeezenet.py``, a
second for SqueezeNet; ten and 1.5 GB of memory with AlexNet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fastcnn import models
from fastcnn.compress import ALEXNET_BYTES, Sizes, compress, decompress, factorize_linear, prune, sizes

# By path, as fastcnn.compress takes them; the longest path that fits counts.
DENSITY = {
    "squeezenet": {
        "": 1.0,
        **{f"features.{fire}.expand3x3": 0.33 for fire in (3, 4, 5, 7, 8, 9)},
        **{f"features.{fire}.expand3x3": 0.30 for fire in (10, 12)},
        **dict.fromkeys(("features.8.expand1x1", "features.9.squeeze"), 0.5),
        **dict.fromkeys(("features.10.expand1x1", "features.12.squeeze"), 0.5),
        "classifier": 0.20,
    },
    "alexnet": {
        **{f"features.{conv}": kept for conv, kept in ((0, 0.84), (4, 0.38), (8, 0.35), (10, 0.37), (12, 0.37))},
        **{f"classifier.{linear}": kept for linear, kept in ((0, 0.09), (3, 0.09), (6, 0.25))},
    },
}
# Bits, the name of the data type, and MB in table 2.
DEEP_COMPRESSION: dict[str, list[tuple[int | dict[str, int], str, float]]] = {
    "squeezenet": [(8, "8 bit", 0.66), (6, "6 bit", 0.47)],
    "alexnet": [({"features": 8, "classifier": 5}, "5-8 bit", 6.9)],
}
UNCOMPRESSED = {"squeezenet": 4.8, "alexnet": 240.0}


def line(network: str, how: str, dtype: str, density: float, size: float, printed: float) -> None:
    ratio = f"{ALEXNET_BYTES / size:.0f}x"
    print(f"{network:11} {how:17} {dtype:8} {density:7.1%} {size / 1e6:8.3f} {ratio:>6} {printed:10}", flush=True)


def without_coding(network: str) -> None:
    """The rows of table 2 without shared weights, which are arithmetic on shapes."""
    net = models.create(network, device="meta")
    parameters = models.count_params(net)
    line(network, "none", "32 bit", 1.0, 4 * parameters, UNCOMPRESSED[network])
    if network == "alexnet":
        kept = sum(
            DENSITY[network].get(name.removesuffix(".weight"), 1) * p.numel() for name, p in net.named_parameters()
        )
        line(network, "pruning, weights", "32 bit", kept / parameters, 4 * kept, 27.0)
        for path in ("classifier.0", "classifier.3", "classifier.6"):
            net.set_submodule(path, factorize_linear(net.get_submodule(path), compression=6))
        line(network, "SVD, linear by 6", "32 bit", 1.0, 4 * models.count_params(net), 48.0)


def main(argv: list[str] | None = None) -> dict[tuple[str, str], Sizes]:
    """Compresses and prints; returns what the files hold, by network and bits."""
    parser = argparse.ArgumentParser(description="Compresses untrained networks and counts the bytes.")
    parser.add_argument("networks", nargs="*", metavar="network", help=f"of {', '.join(DENSITY)}; default: both")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--tensors", action="store_true", help="prints a table of each network's tensors, too")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="writes the files here")
    options = parser.parse_args(argv)
    for network in options.networks:
        if network not in DENSITY:
            parser.error(f"network must be one of {', '.join(DENSITY)}, got {network!r}")
    if options.save is not None and not options.save.is_dir():
        parser.error(f"no folder {str(options.save)!r}")

    print("Random weights, never trained: the bytes say nothing of accuracy. MB of 10^6 bytes.")
    print("network     compression       type     density       MB  ratio  table's MB")
    found = {}
    for network in options.networks or DENSITY:
        without_coding(network)
        torch.manual_seed(options.seed)
        net = prune(models.create(network), {path: 1 - kept for path, kept in DENSITY[network].items()})
        for bits, dtype, printed in DEEP_COMPRESSION[network]:
            data = compress(net, bits)
            models.create(network).load_state_dict(decompress(data), strict=True)
            size = sizes(data)
            line(network, "deep compression", dtype, size.density, size.coded, printed)
            found[network, dtype] = size
            if options.tensors:
                print(f"\n{size}\n")
            if options.save is not None:
                (options.save / f"{network}_{dtype.replace(' ', '_')}.fcnn").write_bytes(data)
    return found


if __name__ == "__main__":
    main()
