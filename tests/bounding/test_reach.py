"""What is kept between passes holds for every domain and every later, tighter bound."""

from collections.abc import Callable

import pytest
import torch

from tests.soundness.graphs import FAMILIES
from verifier.bounding.engine import bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import prepare
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.stacked import cast, join


def test_one_domain_reaches_no_further_than_all() -> None:
    program = prepare(FAMILIES["dense"]("relu", seed=1), torch.float32)
    size = torch.tensor([0.1, 3.0, 0.5]).reshape(3, *(1 for _ in program.graph.input_shape))
    center = torch.zeros(3, *program.graph.input_shape)
    found = bound_nodes(program, Interval(center - size, center + size))
    part = found.select(slice(0, 1))  # asked first, about the smallest box only
    affine = [k for k, node in enumerate(program.graph.nodes) if isinstance(node.op, Affine)]
    for position in affine:
        error = part.reach.error(program, position, 5, 7)
        assert error is found.reach.error(program, position, 5, 7)
        for domain in range(3):
            alone = type(found)(found.select(slice(domain, domain + 1)).intervals)
            assert bool((alone.reach.error(program, position, 5, 7) <= error).all())
            assert bool((alone.reach.underflow(program, position) <= found.reach.underflow(program, position)).all())
        assert bool((found.reach.error(program, position, 9, 7) > error).any())
    assert found.reach.largest(0, torch.float64).dtype == torch.float64
    assert torch.equal(found.reach.largest(0, torch.float32)[0], torch.full(program.graph.input_shape, 3.0))


@pytest.mark.parametrize("made", [lambda parts: join(parts[::-1]), lambda parts: cast(join(parts), torch.float64)])
def test_bounds_that_are_joined_reach_as_far_as_the_farthest(made: Callable[[list[NodeBounds]], NodeBounds]) -> None:
    program = prepare(FAMILIES["dense"]("relu", seed=1), torch.float32)
    center = torch.zeros(1, *program.graph.input_shape)
    parts = [bound_nodes(program, Interval(center - size, center + size)) for size in (3.0, 0.1)]
    whole = made([part.without_forms() for part in parts])
    for position, bounds in whole.intervals.items():
        largest = whole.reach.largest(position, torch.float32)
        assert bool((bounds.magnitude().float() <= largest).all())
