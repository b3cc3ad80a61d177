"""Loading: paths, compression, external data, batches, and every kind of file that cannot be used."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.frontend.onnx_models import build, load_nodes, node, save
from verifier.errors import ModelError, UnsupportedError
from verifier.frontend.network import load
from verifier.frontend.replay import replay

WEIGHT = {"w": np.arange(6, dtype=np.float32).reshape(3, 2)}
DENSE = [node("MatMul", ("x", "w"), ("z",)), node("Relu", ("z",))]


def test_plain_and_gzip(tmp_path: Path) -> None:
    path = save(build(DENSE, (1, 3), WEIGHT), tmp_path)
    plain = load(path)
    (tmp_path / "packed.onnx.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed, unnamed = load(tmp_path / "packed.onnx.gz"), load(tmp_path / "packed.onnx")
    assert plain.sha256 == packed.sha256 == unnamed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert plain.input_name == "x" and plain.output_name == "y" and plain.opset == 13
    assert plain.input_shape == (1, 3) and plain.output_shape == (1, 2) and plain.input_dtype == np.float32
    np.testing.assert_array_equal(packed.run(np.array([[1.0, 2.0, 3.0]])), [[[16, 22]]])


def test_external_data(tmp_path: Path) -> None:
    model = build(DENSE, (1, 3), WEIGHT)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    replay(load(tmp_path / "m.onnx"))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="external weights"):
        load(tmp_path / "m.onnx")


def test_open_batch_dimension(tmp_path: Path) -> None:
    network = load_nodes(tmp_path, DENSE, ("N", 3), constants=WEIGHT)
    assert network.input_shape == (1, 3) and network.batched
    x = np.random.default_rng(0).standard_normal((5, 1, 3))
    together = network.run(x)
    assert together.shape == (5, 1, 2)
    np.testing.assert_allclose(together, [network.run(point[None])[0] for point in x], rtol=1e-5)


def test_batch_that_the_network_mixes_is_run_one_by_one(tmp_path: Path) -> None:
    nodes = [node("ReduceSum", ("x", "axes"), ("y",), keepdims=1)]
    network = load_nodes(tmp_path, nodes, ("N", 3), constants={"axes": np.array([0])})
    x = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    np.testing.assert_array_equal(network.run(x), x)


def test_float64_network(tmp_path: Path) -> None:
    weight = {"w": np.array([[1 / 3], [np.pi]])}
    network = load_nodes(tmp_path, [node("MatMul", ("x", "w"))], (1, 2), constants=weight, kind=TensorProto.DOUBLE)
    assert network.input_dtype == np.float64
    assert replay(network) < 1e-14


def test_constants_are_exact(tmp_path: Path) -> None:
    network = load_nodes(tmp_path, DENSE, (1, 3), constants={"w": np.full((3, 2), 0.1, dtype=np.float32)})
    op: Any = network.graph.nodes[1].op
    assert set(op.weight.flatten().tolist()) == {float(np.float32(0.1))}


def test_folding_is_in_double_precision(tmp_path: Path) -> None:
    """0.1f * 0.1f is not a float32; the real product is what the graph stands for."""
    nodes = [node("Mul", ("c", "c"), ("square",)), node("Mul", ("x", "square"))]
    network = load_nodes(tmp_path, nodes, (1, 1), constants={"c": np.float32(0.1)})
    op: Any = network.graph.nodes[1].op
    assert float(op.scale) == float(np.float32(0.1)) ** 2


def test_unused_parts_are_ignored(tmp_path: Path) -> None:
    nodes = [*DENSE, node("Sin", ("z",), ("unused",))]
    assert "Sin" not in {entry.op.name for entry in load_nodes(tmp_path, nodes, (1, 3), constants=WEIGHT).graph.nodes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"this is not a network", "not an ONNX model"),
        (b"\x1f\x8b\x08\x00garbage", "gzip"),
        (build(DENSE, (1, 3), WEIGHT).SerializeToString()[:-20], "not an ONNX model|computed by no node|graph|shape"),
    ],
)
def test_damaged_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert "bad.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="directory"):
        load(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers(value: float, tmp_path: Path) -> None:
    weight = WEIGHT["w"].copy()
    weight[1, 1] = value
    with pytest.raises(ModelError, match=r"MatMul node .*NaN or infinity"):
        load_nodes(tmp_path, DENSE, (1, 3), constants={"w": weight})


def test_all_unknown_operators_are_listed(tmp_path: Path) -> None:
    nodes = [
        *(node("NonZero", ("x", "w", "w"), ("a",)), node("Det", ("a",), ("b",)), node("Det", ("b",), ("y",))),
        helper.make_node("Own", ["x"], ["unused"], domain="my.domain"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        load_nodes(tmp_path, nodes, (1, 3), constants=WEIGHT)
    text = str(caught.value)
    assert "NonZero (1 times" in text and "Det (2 times" in text and "my.domain:Own" in text and "tensor 'b'" in text


def test_subgraphs_are_refused(tmp_path: Path) -> None:
    branch = helper.make_graph([node("Relu")], "branch", [], [helper.make_tensor_value_info("y", 1, None)])
    nodes = [node("If", ("c",), then_branch=branch, else_branch=branch)]
    with pytest.raises(UnsupportedError, match="If"):
        load_nodes(tmp_path, nodes, (1, 3), constants={"c": np.array(True)})


@pytest.mark.parametrize(
    ("nodes", "shape", "more", "message"),
    [
        (DENSE, (1, 4), {"constants": WEIGHT}, "MatMul.*'z'.*inner sizes 4 and 3"),
        ([node("MatMul", ("x", "gone"))], (1, 3), {}, "reads 'gone'"),
        ([node("Relu", ("x",), ("z",))], (1, 3), {}, "'y' is computed by no node"),
        ([node("Relu")], (1, "width"), {}, "dimension 1 of input 'x' has no fixed size"),
        ([node("Relu")], (1, 3), {"opset": 7}, "opset 7"),
        ([node("Relu")], (1, 3), {"kind": TensorProto.FLOAT16}, "float16"),
        ([node("Add", ("x", "c"))], (1, 3), {"constants": {"c": np.zeros(3, np.float16)}}, "float16"),
        ([node("Div", ("x", "c"))], (1, 3), {"constants": {"c": np.zeros(3, np.float32)}}, "Div.*zero"),
        ([node("Conv", ("x", "x"))], (1, 1, 3, 3), {}, "Conv.*weights.*constant"),
        ([node("Concat", ("x", "x"))], (1, 3), {}, "Concat.*axis"),
        ([node("Softmax", axis=5)], (1, 3), {}, "axis 5"),
        ([node("Gather", ("x", "c"), axis=1)], (1, 3), {"constants": {"c": np.array(3)}}, "Gather.*outside"),
        ([node("Cast", to=TensorProto.STRING)], (1, 3), {}, "Cast.*string"),
        ([node("BatchNormalization", ("x", "c", "c", "c", "c"), training_mode=1)], (1, 3, 2),
         {"constants": {"c": np.ones(3, np.float32)}, "opset": 14}, "training"),
    ],
)  # fmt: skip
def test_bad_networks(
    nodes: list[Any], shape: tuple[Any, ...], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_nodes(tmp_path, nodes, shape, **more)
    assert "model.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_two_inputs_or_outputs(tmp_path: Path) -> None:
    model = build([node("Add", ("x", "x2"))], (1, 3))
    model.graph.input.append(helper.make_tensor_value_info("x2", 1, (1, 3)))
    with pytest.raises(UnsupportedError, match=r"2 inputs \('x', 'x2'\)"):
        load(save(model, tmp_path))
    model = build([node("Relu"), node("Sigmoid", ("x",), ("y2",))], (1, 3))
    model.graph.output.append(helper.make_tensor_value_info("y2", 1, None))
    with pytest.raises(UnsupportedError, match=r"2 outputs \('y', 'y2'\)"):
        load(save(model, tmp_path))


def test_initializers_that_are_inputs_too(tmp_path: Path) -> None:
    model = build(DENSE, (1, 3), WEIGHT)
    model.graph.input.append(helper.make_tensor_value_info("w", 1, (3, 2)))
    replay(load(save(model, tmp_path)))


def test_a_tensor_with_too_few_numbers(tmp_path: Path) -> None:
    model = build(DENSE, (1, 3), WEIGHT)
    broken = numpy_helper.from_array(WEIGHT["w"], "w")
    broken.raw_data = broken.raw_data[:-4]
    model.graph.initializer[0].CopyFrom(broken)
    with pytest.raises(ModelError, match="'w'"):
        load(save(model, tmp_path))


def test_loading_imports_neither_onnxruntime_nor_the_reference(tmp_path: Path) -> None:
    path = save(build(DENSE, (1, 3), WEIGHT), tmp_path)
    code = (
        f"import sys; from verifier.frontend.network import load; load({str(path)!r});"
        "assert 'onnxruntime' not in sys.modules and 'onnx.reference' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
