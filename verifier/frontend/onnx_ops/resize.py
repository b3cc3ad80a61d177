"""Resize and Upsample: nearest neighbours are a Select, linear and cubic interpolation a matrix along each axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from verifier.errors import ModelError, UnsupportedError
from verifier.frontend.onnx_ops.lowering import along, move
from verifier.frontend.onnx_ops.registry import Call, normalise, operator
from verifier.frontend.onnx_ops.values import Value


@operator("Upsample", since=7)
def upsample_by_attribute(call: Call) -> Value:
    scales = call.attribute("scales", None)
    if scales is None:
        raise ModelError("its scales are missing")
    return _resized(call, [float(number) for number in scales], None, "asymmetric", "simple")


@operator("Upsample", since=9)
def upsample(call: Call) -> Value:
    return _resized(call, call.constant(1, "scales").tolist(), None, "asymmetric", "simple")


@operator("Resize", since=10)
def resize_asymmetric(call: Call) -> Value:
    return _resized(call, call.constant(1, "scales").tolist(), None, "asymmetric", "simple")


@operator("Resize", since=11)
def resize(call: Call) -> Value:
    rank = len(call.value(0).shape)
    axes = [normalise(axis, rank) for axis in call.attribute("axes", range(rank))]
    if call.attribute("antialias", 0) or call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("antialias and keep_aspect_ratio_policy are not supported")
    scales = np.ones(rank)
    sizes: list[int] | None = None
    if call.has(2) and call.constant(2, "scales").size:
        scales[axes] = call.constant(2, "scales")
    else:
        sizes = list(call.value(0).shape)
        for axis, size in zip(axes, call.constant(3, "sizes"), strict=True):
            sizes[axis] = int(size)
        scales = np.array(sizes) / np.array(call.value(0).shape)
    coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
    return _resized(call, scales.tolist(), sizes, coordinates, call.attribute("nearest_mode", "round_prefer_floor"))


def _resized(call: Call, scales: Sequence[float], sizes: list[int] | None, coordinates: str, rounding: str) -> Value:
    value, mode = call.variable(0), call.attribute("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear", "trilinear", "cubic"):
        raise UnsupportedError(f"mode '{mode}' is not supported, only nearest, linear and cubic")
    targets = sizes or [int(np.floor(size * scale)) for size, scale in zip(value.shape, scales, strict=True)]
    result: Value = value
    for axis, (size, target, scale) in enumerate(zip(value.shape, targets, scales, strict=True)):
        if size == target and scale == 1:
            continue
        places = _coordinates(coordinates, size, target, scale)
        if mode == "nearest":
            chosen = np.clip(_nearest(rounding, places, scale), 0, size - 1).astype(np.int64)
            result = move(call, result, partial(np.take, indices=chosen, axis=axis))
        elif mode == "cubic":
            steepness, inside = call.attribute("cubic_coeff_a", -0.75), bool(call.attribute("exclude_outside", 0))
            result = along(call, call.materialise(result), axis, _cubic(places, size, steepness, inside))
        else:
            result = along(call, call.materialise(result), axis, _interpolation(np.clip(places, 0, size - 1), size))
    return result


def _coordinates(mode: str, size: int, target: int, scale: float) -> np.ndarray:
    """Where the centre of each of `target` elements lies on the original axis."""
    x = np.arange(target, dtype=np.float64)
    if mode == "asymmetric":
        return x / scale
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and target > 1):
        return (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros_like(x)
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - target / (scale * size)) + (x + 0.5) / scale - 0.5
    if mode == "align_corners":
        return x * ((size - 1) / (target - 1)) if target > 1 else np.zeros_like(x)
    raise UnsupportedError(f"coordinate_transformation_mode '{mode}' is not supported")


def _nearest(mode: str, places: np.ndarray, scale: float) -> np.ndarray:
    if mode == "simple":
        return np.floor(places) if scale >= 1 else np.ceil(places)
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }
    if mode not in functions:
        raise UnsupportedError(f"nearest_mode '{mode}' is not supported")
    return np.asarray(functions[mode](places))


def _interpolation(places: np.ndarray, size: int) -> np.ndarray:
    """`[target, size]`: the two weights of each place between its neighbours."""
    below = np.floor(places).astype(np.int64)
    above, rows = np.minimum(below + 1, size - 1), np.arange(len(places))
    matrix = np.zeros((len(places), size))
    np.add.at(matrix, (rows, below), 1 - (places - below))
    np.add.at(matrix, (rows, above), places - below)
    return matrix


def _cubic(places: np.ndarray, size: int, steepness: float, inside: bool) -> np.ndarray:
    """`[target, size]`: the weights of each place's four neighbours (Keys 1981). Those outside of the axis count as the
    ones at its ends or, with `inside`, not at all."""
    first, rows = np.floor(places).astype(np.int64) - 1, np.arange(len(places))
    matrix = np.zeros((len(places), size))
    for neighbour in range(4):
        at = first + neighbour
        weight = _keys(np.abs(places - at), steepness)
        weight = np.where((at < 0) | (at >= size), 0.0, weight) if inside else weight
        np.add.at(matrix, (rows, np.clip(at, 0, size - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True) if inside else matrix


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel at a distance of at most 2."""
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    return np.asarray(np.where(x <= 1, near, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a))
