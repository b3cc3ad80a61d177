"""Values made of tensors with a common first axis: picking rows, joining, whatever the nesting.

A stacked value is a tensor, or a dict, tuple or dataclass of stacked values. Anything else in it is the same for all,
but for what a dataclass works out itself, which it does anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def pick(value: T, index: Tensor | slice) -> T:
    """The rows `index` (integers, a mask, or a slice) of every tensor."""
    return map_tensors(lambda tensors: tensors[0][index], [value])


def join(values: Sequence[T]) -> T:
    """One after the other along the first axis."""
    return values[0] if len(values) == 1 else map_tensors(lambda tensors: torch.cat(list(tensors)), values)


def clone(value: T) -> T:
    """The same in memory of its own."""
    return map_tensors(lambda tensors: tensors[0].clone(), [value])


def cast(value: T, dtype: torch.dtype) -> T:
    """Floating-point tensors in `dtype`; exact when widening."""
    return map_tensors(lambda tensors: tensors[0].to(dtype) if tensors[0].is_floating_point() else tensors[0], [value])


def move(value: T, device: torch.device | str) -> T:
    """The same on a device."""
    return map_tensors(lambda tensors: tensors[0].to(device), [value])


def map_tensors(function: Callable[[Sequence[Tensor]], Tensor], values: Sequence[T]) -> T:
    """A value of the same structure, with `function` applied to the tensors at the same place in each of `values`."""
    return _map(function, values)


def _map(function: Callable[[Sequence[Tensor]], Tensor], values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return function(values)
    if isinstance(first, dict):
        return {key: _map(function, [value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_map(function, parts) for parts in zip(*values, strict=True))
    if not dataclasses.is_dataclass(first):
        return first
    names = [field.name for field in dataclasses.fields(first) if field.init]
    kind: Any = type(first)
    return kind(**{name: _map(function, [getattr(value, name) for value in values]) for name in names})
