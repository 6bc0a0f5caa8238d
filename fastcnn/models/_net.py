"""The contract of every network: a row of its family's table, named features, a head that can be dropped."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastcnn.models._depth_first import find_prefix
from fastcnn.models._preprocess import IMAGENET, Preprocess
from fastcnn.nn.fused import runs_eagerly
from fastcnn.nn.fusing import fold_conv_norm
from fastcnn.nn.norms import run_in_turn
from fastcnn.nn.program import run_recorded

Net = TypeVar("Net", bound="ConvNet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One variant of a family: what every family's row has. Families subclass it with their own fields.

    Attributes:
        source: the paper, and what differs from it.
        task: "classification", ...
        num_classes: outputs of the head.
        in_channels: of the input image.
        preprocess: of the published weights; its input size is also that of the counts.
    """

    source: str
    task: str = "classification"
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = IMAGENET

    def __post_init__(self) -> None:
        for field in ("num_classes", "in_channels"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{field} must be an int, got {value!r}")
            if value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")


class Feature(NamedTuple):
    """A place where a network's features can be taken.

    Attributes:
        name: key of the ``features_only`` output.
        channels: of the map there.
        stride: input pixels per pixel of the map.
        modules: paths of the submodules that lead here from the feature before, in the order they run.
    """

    name: str
    channels: int
    stride: int
    modules: tuple[str, ...]


class ConvNet(nn.Module):
    """A network that is a sequence of features (``feature_chain``) and a head.

    A family's class builds its layers in ``__init__(row, *, device, dtype)``, sets the attributes below
    and implements :meth:`forward_head`. A network whose features are not a chain overrides
    :meth:`forward_stages`.

    Attributes:
        row: the row it was built from, with the caller's overrides.
        feature_chain: every feature, in the order of computation.
        head_names: names of the children that belong to the head and not to the features, auxiliary heads included.
        classifier_path: path of the layer whose outputs are the classes: linear, or a 1x1 convolution.
        outputs_per_class: of that layer.
        dims: axes of an image: 2, or 3 of a volume.
        auxiliary: classifiers that only training runs, from the first to the last: the feature each is put on, and
            the name of the child, a module from that map to logits.
        auxiliary_classifier: path of the layer in each of them whose outputs are the classes.
        old_keys: (pattern, replacement), as of ``re.sub``, for keys of published files that are not today's.
        conv_chains: see :func:`fastcnn.nn.fold_conv_norm`; for pairs that are this module's own children.
        is_fused: whether :meth:`fuse` has been called.
        classes: a name for each label, where the weights brought them; else ().
    """

    feature_chain: tuple[Feature, ...]
    head_names: tuple[str, ...]
    classifier_path: str
    outputs_per_class: int = 1
    dims: int = 2
    auxiliary: tuple[tuple[str, str], ...] = ()
    auxiliary_classifier = "fc"
    old_keys: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    conv_chains: tuple[tuple[str, ...], ...] = ()
    is_fused = False
    classes: tuple[str, ...] = ()

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row
        self.feature_names: tuple[str, ...] = ()
        self.dropped_paths: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return self.row.num_classes

    @property
    def in_channels(self) -> int:
        return self.row.in_channels

    @property
    def preprocess(self) -> Preprocess:
        """The published weights' preprocessing; call it on an image to get an input."""
        return self.row.preprocess

    @property
    def input_sides(self) -> tuple[int, ...]:
        """Of the images that counts are for: (H, W), or (D, H, W) of volumes."""
        return (self.preprocess.input_size,) * self.dims

    @property
    def input_layout(self) -> str:
        """What ``forward`` takes, for messages."""
        return f"(N, {self.in_channels}, {'D, ' if self.dims == 3 else ''}H, W)"

    @property
    def features_only(self) -> bool:
        return bool(self.feature_names)

    @property
    def feature_info(self) -> tuple[Feature, ...]:
        """What a ``features_only`` network returns; of a whole network, all that it could return."""
        return tuple(f for f in self.feature_chain if not self.feature_names or f.name in self.feature_names)

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        """(N, in_channels, H, W) to logits (N, num_classes), or to ``{name: map}`` where ``features_only``.

        A network with auxiliary classifiers returns (logits, first auxiliary logits, ...) in training mode, and only
        the logits in eval mode. Deterministic in eval mode. Gradients flow to the input and every parameter.

        Raises:
            ValueError: an input of another rank or number of channels.
        """
        if input.dim() != 2 + self.dims or input.shape[1] != self.in_channels:
            raise ValueError(f"{type(self).__name__} takes {self.input_layout}, got {tuple(input.shape)}")
        if self.is_fused and runs_eagerly():
            return run_recorded(self, self._run, input)
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        if self.feature_names:
            return self.forward_stages(input, self.feature_names)
        if not (self.training and self.auxiliary):
            return self.forward_head(self.forward_features(input))
        last = self.feature_info[-1].name
        maps = self.forward_stages(input, (*(name for name, _ in self.auxiliary), last))
        heads = (self.get_submodule(head)(maps[name]) for name, head in self.auxiliary)
        return (self.forward_head(maps[last]), *heads)

    def forward_layers(self, input: Tensor) -> Any:
        """Every layer once, for :func:`fastcnn.models.summary`: ``forward``, but of a detector what no value steers."""
        return self(input)

    def forward_features(self, input: Tensor) -> Tensor:
        """The last feature map, before any pooling: (N, channels, H / stride, W / stride)."""
        last = self.feature_info[-1].name
        return self.forward_stages(input, (last,))[last]

    def forward_stages(self, input: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The maps of the features ``names``, in the order of computation."""
        out: dict[str, Tensor] = {}
        stages = [(stage, [attrgetter(path)(self) for path in stage.modules]) for stage in self.feature_chain]
        if self.is_fused and not self.training and runs_eagerly():
            prefix = find_prefix(stages, input, names)
            if prefix is not None:
                first = [layer for _, layers in stages[: prefix.stages] for layer in layers]
                input = torch.cat([run_in_turn(first, part) for part in input.split(prefix.images)])
                del stages[: prefix.stages]
        for stage, layers in stages:
            input = run_in_turn(layers, input)
            if stage.name in names:
                out[stage.name] = input
        return out

    def forward_head(self, features: Tensor) -> Tensor:
        """:meth:`forward_features`'s map to logits (N, num_classes)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_head")

    def keep_features(self: Net, names: Sequence[str] | bool = True) -> Net:
        """Makes this a ``features_only`` network: ``forward`` returns the features ``names``; returns itself.

        True means the deepest feature of each stride, the pyramid that FPN, U-Net and their like take. The
        head and the layers that no kept feature needs are dropped, so every parameter left gets a gradient.

        Raises:
            ValueError: no name, or one that the network does not have.
        """
        available = {stage.name: stage for stage in self.feature_info}
        if names is True:
            names = tuple({stage.stride: stage.name for stage in self.feature_info}.values())
        elif not names:
            raise ValueError(f"features_only needs at least one feature name, got {names!r}")
        else:
            names = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
        for name in names:
            if name not in available:
                raise ValueError(f"{type(self).__name__} has no feature {name!r}; it has {', '.join(available)}")
        deepest = max(index for index, stage in enumerate(self.feature_chain) if stage.name in names)
        unused = [path for stage in self.feature_chain[deepest + 1 :] for path in stage.modules] + [
            name for name in self.head_names if hasattr(self, name)
        ]
        for path in unused:
            parent, _, child = path.rpartition(".")
            delattr(self.get_submodule(parent), child)
        self.feature_names = tuple(stage.name for stage in self.feature_chain if stage.name in names)
        self.feature_chain = self.feature_chain[: deepest + 1]
        self.dropped_paths += tuple(unused)
        return self

    def replace_head(self: Net, num_classes: int) -> Net:
        """Gives every classifier ``num_classes`` fresh outputs, initialised as when built; returns the network.

        For fine-tuning: load published weights first, then replace the head.

        Raises:
            ValueError: a ``features_only`` network, which has no head, or ``num_classes`` below 1.
        """
        if self.features_only:
            raise ValueError(f"this {type(self).__name__} was built with features_only and has no head")
        row = dataclasses.replace(self.row, num_classes=num_classes)
        for path in (self.classifier_path, *(f"{head}.{self.auxiliary_classifier}" for _, head in self.auxiliary)):
            self.renew(path, num_classes)
        self.row, self.classes = row, ()
        return self

    def renew(self, path: str, outputs: int) -> None:
        """Puts a fresh linear layer or convolution of so many outputs in the place of the one at ``path``."""
        old = self.get_submodule(path)
        assert isinstance(old, nn.Linear | nn.Conv2d | nn.Conv3d)
        options: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device}
        options["dtype"] = old.weight.dtype
        conv: Any = nn.Conv3d if self.dims == 3 else nn.Conv2d
        new = (
            nn.Linear(old.in_features, outputs, **options)
            if isinstance(old, nn.Linear)
            else conv(old.in_channels, outputs, old.kernel_size, **options)
        )
        self.init_weights(new)
        new.train(old.training)
        self.set_submodule(path, new)

    def init_weights(self, module: nn.Module) -> None:
        """Initialises ``module``, the network or a part of it, as this family publishes it."""
        raise NotImplementedError(f"{type(self).__name__} has no init_weights")

    def fuse(self: Net) -> Net:
        """Folds every batch norm into its convolution, and what our kernels do besides (activation, channel shuffle),
        for inference; returns the network, itself changed.

        Eval mode only; outputs stay the same up to rounding; a second call changes nothing. The state dict is
        the fused one afterwards (convolutions with biases, no norms), so load weights before.

        Without gradients on a CPU, the operators that a call comes to are recorded for each size of the input, and
        called without the layers' Python from the third call on, until something in the network changes. Where
        features are a chain and the first maps of a batch are larger than a cache, a few images at a time go through
        the first stages.

        Raises:
            RuntimeError: the network is in training mode.
        """
        self.is_fused = True
        return fold_conv_norm(self)
