"""Div: by a constant, of integers, as a share of a total, and else as a product with a reciprocal."""

from __future__ import annotations

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import scale, together
from verifier.frontend.onnx_ops.quotients import inverse, product
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.selection import power_shares, shares
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Abs, Divide, Exp, Power, Relu, Sigmoid, Softplus, Sum

MOST_SHARES = 16
NEVER_NEGATIVE = (Relu, Abs, Sigmoid, Softplus)


@operator("Div")
def divide(call: Call) -> Value:
    left, right = call.value(0), call.value(1)
    if left.dtype.kind in "iu":
        return call.emit(Divide(), *together(call, (left, right)))
    if isinstance(right, Known):
        if not right.array.all():
            raise UnsupportedError("its divisor is a constant with a zero in it")
        return scale(call, call.variable(0), 1 / right.array)
    if isinstance(left, Variable):
        share = _share(call, left, right)
        if share is not None:
            return share
    below = inverse(call, call.variable(1))
    return scale(call, below, left.array) if isinstance(left, Known) else product(call, left, below)


def _share(call: Call, part: Variable, total: Variable) -> Variable | None:
    """Where the divisor sums the numerator over one axis: a softmax of its logarithm, if it has one."""
    below = call.builder.nodes[total.position]
    if not (isinstance(below.op, Sum) and below.inputs == (part.position,) and len(below.op.axes) == 1):
        return None
    axis, op = below.op.axes[0], call.builder.nodes[part.position].op
    if total.shape != below.shape or part.shape[axis] < 2:
        return None
    sources = call.builder.nodes[part.position].inputs
    if isinstance(op, Exp):
        return shares(call, Variable(sources[0], part.shape, part.dtype), axis, logarithm=False)
    if part.shape[axis] > MOST_SHARES:
        return None
    if isinstance(op, NEVER_NEGATIVE):
        return power_shares(call, part, 1.0, total, axis)
    if isinstance(op, Power) and op.exponent > 0:
        base = Variable(sources[0], part.shape, part.dtype)
        if op.exponent % 2 == 0:
            return power_shares(call, call.emit(Abs(), base), op.exponent, total, axis)
        if isinstance(call.builder.nodes[base.position].op, NEVER_NEGATIVE):
            return power_shares(call, base, op.exponent, total, axis)
    return None
