"""Operators: one file per family, one table of all that networks become. Analyses and tests iterate over the table."""

from verifier.core.operator import Op
from verifier.ops.arithmetic import Add, Concat, Scale, Sum
from verifier.ops.conv import Conv, ConvTranspose
from verifier.ops.gated import Gelu, HardSwish, Mish, Silu
from verifier.ops.indexing import Gather, Range, ScatterND, Slice
from verifier.ops.integers import Ceil, Floor, Round, Truncate
from verifier.ops.linear import Linear
from verifier.ops.logic import Where
from verifier.ops.logsumexp import LogSumExp
from verifier.ops.maximum import Maximum, Minimum
from verifier.ops.movement import Crop, Permute, Reshape, Select
from verifier.ops.near import Near
from verifier.ops.periodic import Cos, Sin, Tan
from verifier.ops.piecewise import Abs, Clip, LeakyRelu, Relu, Sign
from verifier.ops.powers import Power, Reciprocal, Sqrt
from verifier.ops.products import Divide, MatMul, Multiply, Remainder, VariablePower
from verifier.ops.ratios import LogRatio, Share
from verifier.ops.saturating import Atan, Erf, Softsign
from verifier.ops.selection import ArgMax, Softmax
from verifier.ops.sigmoid import Sigmoid, Tanh
from verifier.ops.smooth import Elu, Exp, Log, Softplus
from verifier.ops.thresholds import IsNonzero, Positive, Shrink, ThresholdedRelu

AFFINE: tuple[type[Op], ...] = (Linear, Conv, ConvTranspose, Reshape, Permute, Select, Crop, Add, Scale, Concat, Sum)
PIECEWISE: tuple[type[Op], ...] = (Relu, LeakyRelu, Abs, Clip, Sign, Maximum, Minimum)
STEPS: tuple[type[Op], ...] = (Floor, Ceil, Round, Truncate, ThresholdedRelu, Shrink, IsNonzero, Positive)
SMOOTH: tuple[type[Op], ...] = (
    *(Sigmoid, Tanh, Exp, Log, Sqrt, Reciprocal, Power, Sin, Cos, Tan, Atan, Erf),
    *(Softplus, Softsign, Elu, Gelu, Silu, Mish, HardSwish),
)
PRODUCTS: tuple[type[Op], ...] = (Multiply, LogSumExp, LogRatio, Share, Where)
EVALUATED: tuple[type[Op], ...] = (
    *(Divide, Remainder, VariablePower, MatMul, Softmax, ArgMax),
    *(Gather, Slice, Range, ScatterND),
)

OPERATORS: tuple[type[Op], ...] = (*AFFINE, *PIECEWISE, *STEPS, *SMOOTH, *PRODUCTS, *EVALUATED)

UNCERTAIN: tuple[type[Op], ...] = (Near,)  # what no network has, but what is made of one where bounds decide much

__all__ = ["OPERATORS", "UNCERTAIN", *(operator.__name__ for operator in (*OPERATORS, *UNCERTAIN))]
