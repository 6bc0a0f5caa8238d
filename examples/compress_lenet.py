"""Trains LeNet-5 on handwritten digits, then prunes, shares and codes its weights, with the accuracy after each step.

The pipeline of Han et al., Deep Compression, 2016, on the digits of examples/lenet_digits.py: by and by pruned to 8 %
of weights, of the first layer to 66 % and of the last to 19 %, as in its table 3; then 8 bits in convolutions and 5 in
linear layers. Needs scikit-learn (``pip install 'fastcnn[examples]'``). Run: ``python examples/compress_lenet.py``, a
minute.
"""

from __future__ import annotations

import argparse

import torch
from lenet_digits import BATCH, accuracy, load, shifted
from torch import Tensor
from torch.nn import functional as F

from fastcnn import models
from fastcnn.compress import compress, decompress, prune, share_weights, sizes

DENSITIES = (0.4, 0.2, 0.12, 0.08)
FIRST, LAST = 0.66, 0.19
BITS = {"c1": 8, "c3": 8, "c5": 5, "f6": 5, "output": 5}


def train(
    net: models.ConvNet, images: Tensor, labels: Tensor, epochs: int, max_lr: float, generator: torch.Generator
) -> None:
    """With an optimiser of its own: shared weights are other parameters."""
    optimizer = torch.optim.AdamW(net.parameters())
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=steps)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            loss = F.cross_entropy(net(shifted(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main(argv: list[str] | None = None) -> tuple[float, float, int]:
    """Prints each step; returns the accuracy of the trained and of the compressed network, and the file's bytes."""
    parser = argparse.ArgumentParser(description="Trains LeNet-5 on handwritten digits and compresses it.")
    parser.add_argument("--epochs", type=int, default=30, help="of training; half as many after each step")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of images, not of the split")
    options = parser.parse_args(argv)
    if options.epochs < 2:
        parser.error(f"epochs must be at least 2, got {options.epochs}")

    torch.set_num_threads(1)  # Layers so small gain nothing from a second one.
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    net = models.create("lenet5")
    images, labels, *held_out = load(net)
    train(net, images, labels, options.epochs, 4e-3, generator)
    whole = accuracy(net, *held_out)
    print(f"trained: {whole:.2%} of {len(held_out[1])} images held out", flush=True)
    for density in DENSITIES:
        prune(net, {"": 1 - density, "c1": 1 - FIRST, "output": 1 - LAST})
        before = accuracy(net, *held_out)
        train(net, images, labels, options.epochs // 2, 4e-3, generator)
        print(f"{density:.0%} of weights: {before:.2%}, retrained {accuracy(net, *held_out):.2%}", flush=True)
    share_weights(net, BITS)
    before = accuracy(net, *held_out)
    train(net, images, labels, options.epochs // 2, 1e-4, generator)
    print(f"shared: {before:.2%}, retrained {accuracy(net, *held_out):.2%}")

    data = compress(net, BITS)
    read = models.create("lenet5")
    read.load_state_dict(decompress(data), strict=True)
    found = accuracy(read, *held_out)
    print(f"\n{sizes(data)}\ntest accuracy of the file: {found:.2%}")
    return whole, found, len(data)


if __name__ == "__main__":
    main()
