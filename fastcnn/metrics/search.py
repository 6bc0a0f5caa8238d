"""What a search for networks maximises: Tan et al., MnasNet, CVPR 2019, section 3.1."""

from __future__ import annotations


def search_objective(
    accuracy: float, latency: float, target: float, exponents: tuple[float, float] = (-0.07, -0.07)
) -> float:
    """``accuracy * (latency / target) ** w``: equation 2, of one network.

    Args:
        accuracy: as the search measures it, not negative.
        latency: above 0, in any unit.
        target: the latency wanted, in the same unit.
        exponents: ``w`` of a network that is at most as slow as wanted, and of a slower one. The paper's soft
            constraint, the default, gives up 5 % of accuracy for half the latency; (0, -1) is its hard one.

    Raises:
        ValueError: an accuracy that is negative, or a latency that is not above 0.
    """
    if not accuracy >= 0:
        raise ValueError(f"accuracy must not be negative, got {accuracy}")
    if not (latency > 0 and target > 0):
        raise ValueError(f"latency and target must be above 0, got {latency} and {target}")
    return accuracy * (latency / target) ** exponents[latency > target]
