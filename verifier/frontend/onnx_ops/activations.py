"""Activation functions and other functions of one argument."""

from __future__ import annotations

import numpy as np

from verifier.core.operator import Op
from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import scale
from verifier.frontend.onnx_ops.quotients import inverse
from verifier.frontend.onnx_ops.registry import Call, operator, tensor
from verifier.frontend.onnx_ops.values import Value
from verifier.ops import (
    Abs,
    Atan,
    Ceil,
    Clip,
    Cos,
    Elu,
    Erf,
    Exp,
    Floor,
    Gelu,
    HardSwish,
    LeakyRelu,
    Log,
    Mish,
    Relu,
    Round,
    Shrink,
    Sigmoid,
    Sign,
    Silu,
    Sin,
    Softplus,
    Softsign,
    Sqrt,
    Tan,
    Tanh,
    ThresholdedRelu,
)

PLAIN: dict[str, Op] = {
    **{"Relu": Relu(), "Abs": Abs(), "Sign": Sign(), "Sigmoid": Sigmoid(), "Tanh": Tanh(), "Exp": Exp(), "Log": Log()},
    **{"Sqrt": Sqrt(), "Sin": Sin(), "Cos": Cos(), "Tan": Tan(), "Atan": Atan()},
    **{"Erf": Erf(), "Softplus": Softplus(), "Softsign": Softsign(), "Mish": Mish()},
    **{"Floor": Floor(), "Ceil": Ceil(), "Round": Round()},
}


@operator(*PLAIN)
def plain(call: Call) -> Value:
    return call.emit(PLAIN[call.node.op_type], call.variable(0))


@operator("Reciprocal")
def reciprocal(call: Call) -> Value:
    return inverse(call, call.variable(0))


@operator("LeakyRelu")
def leaky_relu(call: Call) -> Value:
    return call.emit(LeakyRelu(tensor(np.asarray(call.attribute("alpha", 0.01)))), call.variable(0))


@operator("PRelu")
def parametric_relu(call: Call) -> Value:
    return call.emit(LeakyRelu(tensor(call.constant(1, "slopes"))), call.variable(0))


@operator("Elu")
def elu(call: Call) -> Value:
    return call.emit(Elu(call.attribute("alpha", 1.0)), call.variable(0))


@operator("Selu")
def selu(call: Call) -> Value:
    """Defaults are ONNX's: the float32 numbers nearest to Klambauer's."""
    alpha = call.attribute("alpha", 1.67326319217681884765625)
    return call.emit(Elu(alpha, call.attribute("gamma", 1.05070102214813232421875)), call.variable(0))


@operator("Celu", since=12)
def celu(call: Call) -> Value:
    alpha = call.attribute("alpha", 1.0)
    return call.emit(Elu(alpha, width=alpha), call.variable(0))


@operator("Gelu", since=20)
def gelu(call: Call) -> Value:
    return call.emit(Gelu(call.attribute("approximate", "none") == "tanh"), call.variable(0))


@operator("Swish", since=24)
def swish(call: Call) -> Value:
    """x sigmoid(alpha x) = silu(alpha x) / alpha."""
    alpha = call.attribute("alpha", 1.0)
    if alpha == 0:
        return scale(call, call.variable(0), 0.5)
    return scale(call, call.emit(Silu(), scale(call, call.variable(0), alpha)), 1 / alpha)


@operator("ThresholdedRelu", since=1)
def thresholded_relu(call: Call) -> Value:
    return call.emit(ThresholdedRelu(call.attribute("alpha", 1.0)), call.variable(0))


@operator("Shrink", since=9)
def shrink(call: Call) -> Value:
    if call.attribute("lambd", 0.5) < 0:
        raise UnsupportedError("a negative attribute 'lambd' is not supported")
    return call.emit(Shrink(call.attribute("lambd", 0.5), call.attribute("bias", 0.0)), call.variable(0))


@operator("HardSigmoid")
def hard_sigmoid(call: Call) -> Value:
    line = scale(call, call.variable(0), call.attribute("alpha", 0.2), call.attribute("beta", 0.5))
    return call.emit(Clip(0.0, 1.0), line)


@operator("HardSwish", since=14)
def hard_swish(call: Call) -> Value:
    return call.emit(HardSwish(), call.variable(0))
