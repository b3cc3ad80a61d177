"""Reads an ONNX file (plain or gzipped) into its bytes and its protobuf message, with errors a user can act on."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from verifier.errors import ModelError, UnsupportedError

FLOATS: dict[int, np.dtype] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
}
INTEGERS: dict[int, np.dtype] = {
    getattr(onnx.TensorProto, name.upper()): np.dtype(name)
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
}
TYPES: dict[int, np.dtype] = {**FLOATS, **INTEGERS}


def read_bytes(path: Path) -> tuple[Path, bytes]:
    """The file that was read (`path`, or `path` + '.gz' where only that exists) and its unpacked content."""
    if not path.exists() and path.with_name(path.name + ".gz").exists():
        path = path.with_name(path.name + ".gz")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"network file '{path}' does not exist") from None
    except IsADirectoryError:
        raise ModelError(f"'{path}' is a directory; give the .onnx file inside") from None
    except OSError as fault:
        raise ModelError(f"network file '{path}' cannot be read: {fault.strerror}") from None
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            raise ModelError(f"network file '{path}' is not a complete gzip file; fetch it again") from None
    if not content:
        raise ModelError(f"network file '{path}' is empty")
    return path, content


def parse(path: Path, content: bytes) -> tuple[onnx.ModelProto, bytes]:
    """The message, and its bytes: where weights lie in other files beside `path`, with these inside."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's DecodeError, whose module differs between its implementations
        raise ModelError(f"network file '{path}' is not an ONNX model, or truncated") from None
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(f"network file '{path}' is not an ONNX model: it has no graph")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as fault:
            raise ModelError(f"external weights of '{path}' cannot be read: {one_line(fault)}") from None
        content = model.SerializeToString()
    return model, content


def to_array(tensor: onnx.TensorProto) -> tuple[np.ndarray, np.dtype]:
    """The tensor's numbers and declared type; floats come as float64, which holds float32 exactly."""
    declared = TYPES.get(tensor.data_type)
    if declared is None:
        raise UnsupportedError(
            f"tensor '{tensor.name}' has type {type_name(tensor.data_type)}; convert the network to float32"
        )
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as fault:
        raise ModelError(f"tensor '{tensor.name}' cannot be read: {one_line(fault)}") from None
    if array.shape != tuple(tensor.dims):
        raise ModelError(f"tensor '{tensor.name}' does not hold as many numbers as its shape says")
    with np.errstate(invalid="ignore"):  # NaN of any kind is refused where it is used
        return (array.astype(np.float64) if declared.kind == "f" else array), declared


def type_name(code: int) -> str:
    """What ONNX calls an element type."""
    known = onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(code).lower() if code in known else f"number {code}"


def one_line(fault: BaseException) -> str:
    """The first line of what an exception says."""
    text = str(fault).strip().splitlines()
    return text[0] if text else type(fault).__name__
