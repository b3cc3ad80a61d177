"""Operators: one file per family, one table of all. Analyses and tests iterate over the table."""

from verifier.core.operator import Op
from verifier.ops.arithmetic import Add, Concat, Scale, Sum
from verifier.ops.conv import Conv, ConvTranspose
from verifier.ops.indexing import Gather, OneHot, Range, ScatterND, Slice
from verifier.ops.integers import Ceil, Floor, Round, Truncate
from verifier.ops.linear import Linear
from verifier.ops.logic import Compare, IsNonzero, Where
from verifier.ops.maximum import Maximum, Minimum
from verifier.ops.movement import Permute, Reshape, Select
from verifier.ops.piecewise import Abs, Clip, LeakyRelu, Relu, Sign
from verifier.ops.products import Divide, MatMul, Multiply, Product, Remainder, VariablePower
from verifier.ops.selection import ArgMax, Softmax
from verifier.ops.sigmoid import Sigmoid, Tanh
from verifier.ops.smooth import (
    Atan,
    Cos,
    Elu,
    Erf,
    Exp,
    Gelu,
    Log,
    Mish,
    Power,
    Reciprocal,
    Shrink,
    Sin,
    Softplus,
    Softsign,
    Sqrt,
    Tan,
    ThresholdedRelu,
)

AFFINE: tuple[type[Op], ...] = (Linear, Conv, ConvTranspose, Reshape, Permute, Select, Add, Scale, Concat, Sum)
PIECEWISE: tuple[type[Op], ...] = (Relu, LeakyRelu, Abs, Clip, Sign, Maximum, Minimum)
SMOOTH: tuple[type[Op], ...] = (
    *(Sigmoid, Tanh, Exp, Log, Sqrt, Reciprocal, Power, Sin, Cos, Tan, Atan, Erf),
    *(Softplus, Softsign, Elu, Gelu, Mish, ThresholdedRelu, Shrink),
)
PRODUCTS: tuple[type[Op], ...] = (Multiply, Divide, Remainder, VariablePower, MatMul, Product)
SELECTIONS: tuple[type[Op], ...] = (
    *(Softmax, ArgMax, Compare, Where, IsNonzero, Floor, Ceil, Round, Truncate),
    *(Gather, Slice, Range, ScatterND, OneHot),
)

OPERATORS: tuple[type[Op], ...] = (*AFFINE, *PIECEWISE, *SMOOTH, *PRODUCTS, *SELECTIONS)

__all__ = ["OPERATORS", *(operator.__name__ for operator in OPERATORS)]
