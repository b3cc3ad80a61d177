"""Holds our graph against onnxruntime on the original file. A network that disagrees is not verified.

Both sides round. How much is reasonable is measured, not assumed: the difference between our float32 and our float64
evaluation is the rounding noise of this network at these points, and onnxruntime may be off by a multiple of it. Where
the graph has steps (Sign, Floor, ArgMax, ...) rounding can tip one over; such a point is excused only if small
perturbations of the input make our own graph jump as far, and never are all points excused.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import torch

from verifier.core.graph import Graph
from verifier.errors import ModelError, ReplayError
from verifier.frontend.network import Network
from verifier.ops import (
    ArgMax,
    Ceil,
    Floor,
    Gather,
    IsNonzero,
    Positive,
    Remainder,
    Round,
    ScatterND,
    Shrink,
    Sign,
    Slice,
    ThresholdedRelu,
    Truncate,
)

NOISE_FACTOR = 64.0  # onnxruntime's error in units of ours: other summation orders, other exponentials
FLOOR = 64.0  # roundings of the largest output that are always allowed
MOST_WITH_STEPS = 1e-3  # of the largest output, in a network with steps
PERTURBATIONS = 32
LEAST_POINTS = 2  # compared, whatever they take
STEPS = (
    *(Sign, Floor, Ceil, Round, Truncate, Remainder, ArgMax, Positive, IsNonzero, ThresholdedRelu, Shrink),
    *(Gather, Slice, ScatterND),
)


def replay(
    network: Network,
    points: np.ndarray | None = None,
    seconds: float = float("inf"),
    deadline: float = float("inf"),
    seed: int = 0,
) -> float | None:
    """Largest difference between graph and file over `points` `[n, *input_shape]` (default: random and corner inputs).

    Inputs that onnxruntime refuses are left out, but not all may be; so are those that are not reached in `seconds`,
    but for the first two. Raises `ReplayError` on disagreement. None where `deadline` (`time.monotonic()`) comes before
    two are compared: the network must not be used then.
    """
    chosen = generic_points(network.input_shape, seed) if points is None else points
    chosen = chosen.reshape(-1, *network.input_shape).astype(network.input_dtype)
    narrow_type = torch.float32 if network.input_dtype == np.float32 else torch.float64
    with torch.no_grad():
        compared = _compared(network, chosen, narrow_type, min(time.monotonic() + seconds, deadline), deadline)
        if compared is None:
            return None
        kept, expected, wide, narrow = compared
        tolerance = _tolerance(network.graph, wide, narrow, narrow_type)
        wrong = ~_agree(expected, wide, narrow, tolerance)
        bad = np.flatnonzero(wrong.any(1))
        excused = [place for place in bad if _is_tie(network, kept[place], expected[place], tolerance[place], seed)]
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected - wide)
    finite = difference[np.isfinite(difference)]
    if len(excused) < len(bad) or len(excused) == len(kept):
        place = next((place for place in bad if place not in excused), bad[0])
        output = int(np.flatnonzero(wrong[place])[0])
        raise ReplayError(
            f"'{network.path}': our graph and onnxruntime disagree at {len(bad)} of {len(kept)} inputs; output {output}"
            f" is {wide[place, output]:.9g} here and {expected[place, output]:.9g} there"
            f" (allowed difference {tolerance[place, 0]:.3g}); please report this network"
        )
    return float(finite.max(initial=0.0))


def generic_points(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """`[n, *shape]`: uniform and corner inputs of [0, 1], normal ones, zeros."""
    generator = np.random.default_rng(seed)
    uniform, normal = generator.random((3, *shape)), generator.standard_normal((2, *shape))
    corners = generator.integers(0, 2, (2, *shape)).astype(np.float64)
    return np.concatenate([uniform, corners, normal, np.zeros((1, *shape))]).astype(np.float32)


def _compared(
    network: Network, points: np.ndarray, narrow_type: torch.dtype, end: float, deadline: float
) -> list[np.ndarray] | None:
    """The points that onnxruntime accepts, and the flat outputs there `[n, outputs]` in float64: its own, ours in
    double precision and in `narrow_type`. As many as there is time for until `end`, and the first two until
    `deadline`; None where that comes first."""
    rows: list[tuple[np.ndarray, ...]] = []
    narrow, fault = network.graph.to(narrow_type), None
    for point in points:
        now = time.monotonic()
        if now > deadline and len(rows) < LEAST_POINTS:
            return None
        if now > end and len(rows) >= LEAST_POINTS:
            break
        try:
            expected = network.run(point[None]).reshape(-1).astype(np.float64)
        except ModelError as error:
            fault = error
            continue
        own = outputs_at(network.graph, point[None], torch.float64)[0], outputs_at(narrow, point[None], narrow_type)[0]
        rows.append((point, expected, *own))
    if fault is not None and not rows:
        raise fault
    return [np.stack(column) for column in zip(*rows, strict=True)]


def outputs_at(graph: Graph, points: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Flat outputs `[n, outputs]` at `points` `[n, *input_shape]`, one after another: memory stays that of one."""
    values: Iterable[torch.Tensor] = (graph.evaluate(torch.from_numpy(point[None]).to(dtype)) for point in points)
    return np.stack([value.reshape(-1).double().numpy() for value in values])


def _tolerance(graph: Graph, wide: np.ndarray, narrow: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Allowed absolute difference for each point `[n, 1]`, from the noise over all points: a single one may be lucky.

    With steps the difference may be a jump and no noise, so there it is capped by a share of the largest output.
    """
    with np.errstate(invalid="ignore"):
        noise = np.nan_to_num(np.abs(wide - narrow), nan=0.0, posinf=0.0)
    size = np.nan_to_num(np.abs(wide), nan=0.0, posinf=0.0).max(axis=1, keepdims=True, initial=0.0)
    allowed = NOISE_FACTOR * float(noise.max(initial=0.0))
    if _has_steps(graph):
        allowed = min(allowed, MOST_WITH_STEPS * float(size.max(initial=0.0)))
    info = torch.finfo(dtype)
    return allowed + FLOOR * info.eps * size + info.tiny


def _has_steps(graph: Graph) -> bool:
    return any(isinstance(node.op, STEPS) for node in graph.nodes)


def _agree(expected: np.ndarray, wide: np.ndarray, narrow: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Mask of the outputs that one of our precisions agrees with; what is not finite must be the same."""
    agree = np.zeros(expected.shape, dtype=np.bool_)
    for ours in (wide, narrow):
        with np.errstate(invalid="ignore"):
            near = np.abs(expected - ours) <= tolerance
        agree |= near | (expected == ours) | (np.isnan(expected) & np.isnan(ours))
    return agree


def _is_tie(network: Network, point: np.ndarray, expected: np.ndarray, tolerance: np.ndarray, seed: int) -> bool:
    """Whether our graph, on inputs perturbed by a few roundings, spans the expected output."""
    if not _has_steps(network.graph):
        return False
    generator = np.random.default_rng(seed)
    directions = generator.uniform(-1, 1, (PERTURBATIONS, *point.shape))
    unit = 16 * np.finfo(network.input_dtype).eps
    nearby = point + directions * unit * np.maximum(np.abs(point), 1e-3)
    values = outputs_at(network.graph, np.concatenate([point[None], nearby]), torch.float64)
    low, high = values.min(0), values.max(0)
    reach = tolerance + (high - low)
    return bool(np.all((expected >= low - reach) & (expected <= high + reach)))
