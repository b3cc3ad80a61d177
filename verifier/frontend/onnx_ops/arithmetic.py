"""Add, Sub, Mul, Div, Neg, Pow, Mod, Sum, Mean, Max, Min and functions of one argument."""

from __future__ import annotations

import numpy as np

from verifier.frontend.onnx_ops.lowering import scale, together
from verifier.frontend.onnx_ops.quotients import product
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import (
    Add,
    Clip,
    Exp,
    Maximum,
    Minimum,
    Power,
    Reciprocal,
    Remainder,
    Sigmoid,
    Silu,
    Sqrt,
    VariablePower,
)


@operator("Add", "Sub")
def add(call: Call) -> Value:
    sign = 1 if call.node.op_type == "Add" else -1
    left, right = call.value(0), call.value(1)
    if isinstance(right, Known):
        return scale(call, call.variable(0), None, sign * right.array)
    if isinstance(left, Known):
        return scale(call, call.variable(1), None if sign > 0 else -1.0, left.array)
    return call.emit(Add((1, sign)), *together(call, (left, right)))


@operator("Sum", "Mean")
def add_many(call: Call) -> Value:
    values = [call.value(index) for index in range(len(call.inputs))]
    total = call.emit(Add((1,) * len(values)), *together(call, values))
    return scale(call, total, 1 / len(values)) if call.node.op_type == "Mean" else total


@operator("Neg")
def negate(call: Call) -> Value:
    return scale(call, call.variable(0), -1.0)


@operator("Mul")
def multiply(call: Call) -> Value:
    left, right = call.value(0), call.value(1)
    if isinstance(left, Known) or isinstance(right, Known):
        constant, variable = (left, right) if isinstance(left, Known) else (right, left)
        assert isinstance(constant, Known) and isinstance(variable, Variable)
        return scale(call, variable, constant.array)
    assert isinstance(left, Variable) and isinstance(right, Variable)
    if left.position == right.position:
        return call.emit(Power(2.0), left)
    for gated, gate in ((left, right), (right, left)):
        node = call.builder.nodes[gate.position]
        if isinstance(node.op, Sigmoid) and node.inputs == (gated.position,):
            return call.emit(Silu(), gated)
    return product(call, left, right)


@operator("Mod")
def remainder(call: Call) -> Value:
    fmod = bool(call.attribute("fmod", 0))
    return call.emit(Remainder(fmod), *together(call, (call.value(0), call.value(1))))


@operator("Pow")
def power(call: Call) -> Value:
    base, exponent = call.value(0), call.value(1)
    if isinstance(exponent, Known) and exponent.array.size and np.all(exponent.array == exponent.array.flat[0]):
        number = float(exponent.array.flat[0])
        shape = np.broadcast_shapes(base.shape, exponent.shape)
        variable = call.variable(0)
        if shape == base.shape:
            if number == 1:
                return variable
            special = {0.5: Sqrt(), -1.0: Reciprocal()}.get(number, Power(number))
            return call.emit(special, variable)
    if isinstance(base, Known) and (base.array > 0).all():
        return call.emit(Exp(), scale(call, call.variable(1), np.log(base.array)))
    return call.emit(VariablePower(), *together(call, (base, exponent)))


@operator("Max", "Min")
def extreme(call: Call) -> Value:
    largest = call.node.op_type == "Max"
    values = [call.value(index) for index in range(len(call.inputs))]
    scalars = [value for value in values if isinstance(value, Known) and value.array.size == 1]
    rest = [value for value in values if value not in scalars]
    shape = np.broadcast_shapes(*(value.shape for value in values))
    if not scalars or np.broadcast_shapes(*(value.shape for value in rest)) != shape:
        scalars, rest = [], values
    nodes = together(call, rest)
    result = nodes[0] if len(nodes) == 1 else call.emit(Maximum() if largest else Minimum(), *nodes)
    for scalar in scalars:
        limit = float(scalar.array.reshape(-1)[0])
        result = call.emit(Clip(limit, np.inf) if largest else Clip(-np.inf, limit), result)
    return result


@operator("Clip", since=6)
def clip_by_attributes(call: Call) -> Value:
    lowest, highest = call.attribute("min", -np.inf), call.attribute("max", np.inf)
    limit = float(np.finfo(np.float32).max)
    lowest, highest = (-np.inf if lowest <= -limit else lowest), (np.inf if highest >= limit else highest)
    return call.emit(Clip(lowest, highest), call.variable(0))


@operator("Clip", since=11)
def clip(call: Call) -> Value:
    ends = [call.value(index) if call.has(index) else None for index in (1, 2)]
    if not any(isinstance(end, Variable) for end in ends):
        numbers = [float(call.constant(index, "limits").reshape(())) if call.has(index) else None for index in (1, 2)]
        lowest, highest = numbers
        return call.emit(
            Clip(-np.inf if lowest is None else lowest, np.inf if highest is None else highest), call.variable(0)
        )
    result: Value = call.value(0)
    for end, choice in zip(ends, (Maximum(), Minimum()), strict=True):
        if end is not None:
            result = call.emit(choice, *together(call, (result, end)))
    return result
