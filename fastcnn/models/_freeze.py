"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from fastcnn.models._net import Net
from fastcnn.nn.frozen import set_norms


def freeze(net: Net, up_to: str | None = None) -> Net:
    """Makes constants of the features, for training the head alone; returns the network, itself changed.

    Their parameters need no gradient, so that optimisers of those that do leave them, and their batch norms keep their
    statistics in training mode, too, as :class:`fastcnn.nn.frozen.FrozenBatchNorm2d`. Dropout and stochastic depth go
    on. Call :meth:`ConvNet.replace_head` before or after. To fine-tune all layers, do not freeze any. Source: Yosinski
    et al., How transferable are features in deep neural networks?, NIPS 2014.

    Args:
        up_to: the last feature, of ``net.feature_info``, that is frozen; None freezes all there is but the head, the
            auxiliary classifiers being part of it.

    Raises:
        ValueError: a feature that the network does not have, or a network of none.
    """
    names = [feature.name for feature in net.feature_chain]
    if not names or up_to not in (None, *names):
        raise ValueError(f"{type(net).__name__} has no feature {up_to!r}; it has {', '.join(names) or 'none'}")
    if up_to is None:
        frozen = [path for path, _ in net.named_children() if path not in net.head_names]
    else:
        taken = net.feature_chain[: names.index(up_to) + 1]
        frozen = [path for feature in taken for path in feature.modules]
    for path in frozen:
        part = net.get_submodule(path)
        part.requires_grad_(False)
        set_norms(part, frozen=True)
    return net
