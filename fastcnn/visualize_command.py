"""``fastcnn visualize``: what a network sees, as pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastcnn import visualize as see
from fastcnn.data.draw import label_name
from fastcnn.data.images import read_image, write_image
from fastcnn.detect_command import _device, _outputs
from fastcnn.models import ConvNet, create, create_from, find_entry

LARGEST_TILE = 96  # Pixels of a patch in the grid of responses; smaller ones are enlarged to come near.


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=tuple(_RUN), metavar="WHAT", help=", ".join(_RUN))
    parser.add_argument("images", nargs="*", metavar="IMAGE", type=Path, help="none for kernels")
    parser.add_argument("--out", type=Path, metavar="OUT.png|DIR", required=True, help="a folder for many pictures")
    parser.add_argument("--model", metavar="NAME", help="default: the one that the weights name")
    parser.add_argument("--weights", metavar="FILE|TAG", help="default: the newest published")
    parser.add_argument("--layer", metavar="NAME", help="feature or path of a module; default: the last feature")
    parser.add_argument("--channel", type=int, metavar="INDEX", help="of responses and deconvnet")
    parser.add_argument("--target", type=int, metavar="LABEL", help="of grad-cam; default: each image's likeliest")
    parser.add_argument("--count", type=int, default=9, metavar="K", help="of responses; default: 9")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")


def visualize(options: argparse.Namespace) -> int:
    """Runs the command; every error is a ValueError, TypeError, OSError or ImportError of one line."""
    needs_images, needs_channel, run = _RUN[options.what]
    if needs_images != bool(options.images):
        raise ValueError(f"{options.what} takes {'one or more images' if needs_images else 'no image'}")
    if needs_channel and options.channel is None:
        raise ValueError(f"{options.what} needs --channel")
    run(options)
    return 0


def _network(options: argparse.Namespace, *, detectors: bool = False) -> ConvNet:
    device = _device(options.device)
    if options.model is None and options.weights is None:
        raise ValueError("name a network by --model, or give --weights")
    try:
        if options.model is None:
            net = create_from(options.weights)
        else:
            find_entry(options.model)
            net = create(options.model, weights=options.weights or "DEFAULT")
    except RuntimeError as error:  # Published weights that cannot be fetched.
        raise OSError(str(error)) from None
    if net.row.task == "detection" and not detectors:
        raise ValueError(f"{options.what} takes a classifier or a network of maps, and this is a detector")
    return net.to(device).eval()


def _inputs(net: ConvNet, images: Sequence[Path]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each file the input (1, C, H, W), and as uint8 what the network sees of the picture."""
    device = next(net.parameters()).device
    preprocess = net.preprocess
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    for path in images:
        image = read_image(path, upright=True)
        if len(mean) == 1:
            image = image.float().mean(0, keepdim=True) / 255
        input = preprocess(image)
        seen = (input[0] * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        yield input.to(device), seen.expand(3, -1, -1)


def _write(path: Path, picture: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, picture)


def _each(options: argparse.Namespace, draw: Callable[[ConvNet, Tensor, Tensor], tuple[Tensor, str]]) -> None:
    """One picture, and a line of text, for each image."""
    outputs = _outputs(options.images, options.out)
    net = _network(options)
    for path, output, (input, seen) in zip(options.images, outputs, _inputs(net, options.images), strict=True):
        picture, text = draw(net, input, seen)
        assert output is not None
        _write(output, picture)
        print(f"{path}: {text}")


def _grad_cam(options: argparse.Namespace) -> None:
    def draw(net: ConvNet, input: Tensor, seen: Tensor) -> tuple[Tensor, str]:
        with torch.inference_mode():
            logits = net(input)
        scores = logits.flatten(2).mean(2) if logits.dim() == 4 else logits  # type: ignore[union-attr]
        label = int(scores.argmax(1)) if options.target is None else options.target
        heat = see.grad_cam(net, input, options.layer, label)[0].cpu()
        row, column = divmod(int(heat.argmax()), heat.size(1))
        text = f"{label_name(label, net.classes)}, warmest in row {row}, column {column} of {tuple(heat.shape)}"
        return see.grid([seen, see.overlay(seen, heat)], 2), text

    _each(options, draw)


def _deconvnet(options: argparse.Namespace) -> None:
    def draw(net: ConvNet, input: Tensor, seen: Tensor) -> tuple[Tensor, str]:
        layer = options.layer or net.feature_info[-1].name
        found = see.deconvnet(net, input, layer, options.channel)[0].cpu()
        return see.grid([seen, see.signed_picture(found)], 2), f"channel {options.channel} of {layer}"

    _each(options, draw)


def _responses(options: argparse.Namespace) -> None:
    output = _one(options)
    net = _network(options)
    layer = options.layer or net.feature_info[-1].name
    inputs = (input[0] for input, _ in _inputs(net, options.images))
    found = see.strongest_responses(net, inputs, layer, options.channel, options.count)
    tiles = []
    for each in found:
        [(_, seen)] = _inputs(net, [options.images[each.image]])  # Again, as a folder may not fit the memory.
        tiles += see.patches([seen], [each._replace(image=0)])
        place = f"row {each.row}, column {each.column}, pixels {' '.join(map(str, each.box))}"
        print(f"{options.images[each.image]}: {each.score:.4g}, {place}")
    scale = max(1, LARGEST_TILE // max(max(tile.shape[1:]) for tile in tiles))
    _write(output, see.grid(tiles, columns=min(9, -(-len(tiles) // max(1, round(len(tiles) ** 0.5)))), scale=scale))


def _kernels(options: argparse.Namespace) -> None:
    output = _one(options)
    _write(output, see.first_layer_kernels(_network(options, detectors=True)))


def _one(options: argparse.Namespace) -> Path:
    """The file of the command's only picture."""
    [output] = _outputs([Path(f"{options.what}.png")], options.out)
    assert output is not None
    if output.resolve() in {image.resolve() for image in options.images}:
        raise ValueError(f"--out would write over the image {str(output)!r}")
    return output


# Whether it takes images, whether it needs a channel, and what runs.
_RUN: dict[str, tuple[bool, bool, Callable[[argparse.Namespace], None]]] = {
    "grad-cam": (True, False, _grad_cam),
    "kernels": (False, False, _kernels),
    "responses": (True, True, _responses),
    "deconvnet": (True, True, _deconvnet),
}
