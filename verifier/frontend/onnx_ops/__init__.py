"""ONNX operators, one module per family. Importing this package fills the registry."""

from verifier.frontend.onnx_ops import (  # noqa: F401  (imported for their registrations)
    activations,
    arithmetic,
    attention,
    convolution,
    dense,
    division,
    einsum,
    indexing,
    logic,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reductions,
    resize,
    selection,
    shapes,
)
from verifier.frontend.onnx_ops.builder import Builder
from verifier.frontend.onnx_ops.registry import NEWEST, OLDEST, Call, build, find, registered
from verifier.frontend.onnx_ops.values import Known, Value, Variable, known

__all__ = ["NEWEST", "OLDEST", "Builder", "Call", "Known", "Value", "Variable", "build", "find", "known", "registered"]
