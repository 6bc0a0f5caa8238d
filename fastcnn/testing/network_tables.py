"""Networks against every rival: a table of ratios, and their geometric means over networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import geometric_mean

from fastcnn.testing.tables import LOSS, Result, duration

# The faster of PyTorch's two layouts: what a person has who knows to try both.
EITHER = "eager, faster layout"
LAYOUTS = ("eager", "eager channels_last")


def ratios(result: Result) -> dict[str, float]:
    """By rival, how many times as long as ours it takes; above 1 fastcnn is faster."""
    medians = {name: row["median"] for name, row in result["rows"].items()}
    if "fastcnn" not in medians:
        return {}
    ours = medians.pop("fastcnn")
    found = {}
    for name, median in medians.items():
        found[name] = median / ours
        if name == LAYOUTS[-1]:
            found[EITHER] = min(medians[layout] for layout in LAYOUTS) / ours
    return found


def rival_means(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Per batch, direction and dtype: how many networks, and by rival the geometric mean of ratios over them.

    A mean over fewer networks, since a rival does not run some, says over how many.
    """
    rivals = _rivals(results)
    yield "geometric mean over networks", "networks", *rivals
    groups: dict[str, list[Mapping[str, float]]] = {}
    for result in results:
        name = ", ".join(result[key] for key in ("layer", "direction", "dtype"))
        groups.setdefault(name, []).append(ratios(result))
    for name, group in groups.items():
        yield name, str(len(group)), *(_mean([r[rival] for r in group if rival in r], len(group)) for rival in rivals)


def rival_rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Per network, batch, direction and dtype: our time, and by rival the ratio; empty where it does not run."""
    rivals = _rivals(results)
    yield "network", "fastcnn", *rivals
    for result in sorted(results, key=lambda result: result["subject"]):
        name = ", ".join(result[key] for key in ("subject", "layer", "direction", "dtype"))
        found = ratios(result)
        ours = duration(result["rows"]["fastcnn"]["median"]) if found else "FAILED" if "failed" in result else "alone"
        yield name, ours, *(_ratio(found[rival]) if rival in found else "" for rival in rivals)


def _rivals(results: Iterable[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in ratios(result)))


def _mean(values: Sequence[float], networks: int) -> str:
    if not values:
        return ""
    return _ratio(geometric_mean(values)) + (f" of {len(values)}" if len(values) < networks else "")


def _ratio(value: float) -> str:
    return f"**{value:.2f}x**" if value < LOSS else f"{value:.2f}x"
