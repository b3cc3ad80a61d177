"""RNN, LSTM and GRU over a fixed number of steps, written out step by step.

Gates of one step come from one dense layer over the step's input and the last state side by side. Sequences of
different lengths, peepholes, clipping and activations with parameters are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from verifier.core.operator import Op
from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import positions, reshape, scale, select
from verifier.frontend.onnx_ops.registry import Call, operator, tensor
from verifier.frontend.onnx_ops.values import Value, Variable
from verifier.ops import Add, Concat, Linear, Multiply, Relu, Sigmoid, Softplus, Softsign, Tanh

ACTIVATIONS: dict[str, Op] = {
    **{"Sigmoid": Sigmoid(), "Tanh": Tanh(), "Relu": Relu()},
    **{"Softsign": Softsign(), "Softplus": Softplus()},
}
DEFAULTS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}

State = tuple[Variable | None, ...]
"""What a step hands to the next one: the output and, of an LSTM, the cell. None is zero."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One direction. `inputs` `[gates, hidden, in]`, `states` `[gates, hidden, hidden]`, and their biases
    `[gates, hidden]`; `before`: whether a GRU's reset gate comes behind its layer."""

    inputs: np.ndarray
    states: np.ndarray
    input_bias: np.ndarray
    state_bias: np.ndarray
    functions: tuple[Op, ...]
    before: bool

    def gates(self, call: Call, x: Variable, h: Variable | None, chosen: range) -> list[Variable]:
        """W x + R h + both biases, one `[batch, hidden]` for each of the `chosen` gates."""
        hidden, rows = self.inputs.shape[1], slice(chosen.start, chosen.stop)
        bias = tensor((self.input_bias + self.state_bias)[rows].reshape(-1))
        weight = self.inputs[rows].reshape(-1, self.inputs.shape[2])
        if h is not None:
            weight = np.concatenate([weight, self.states[rows].reshape(-1, hidden)], 1)
            x = call.emit(Concat(1, (x.shape[1], h.shape[1])), x, h)
        every = call.emit(Linear(tensor(weight), bias), x)
        places = positions(every.shape).reshape(x.shape[0], len(chosen), hidden)
        return [select(call, every, places[:, gate]) for gate in range(len(chosen))]


def rnn_step(call: Call, cell: Cell, x: Variable, state: State) -> State:
    (gate,) = cell.gates(call, x, state[0], range(1))
    return (call.emit(cell.functions[0], gate),)


def lstm_step(call: Call, cell: Cell, x: Variable, state: State) -> State:
    """Gates in the order input, output, forget, cell."""
    f, g, h = cell.functions
    enter, leave, forget, new = cell.gates(call, x, state[0], range(4))
    memory = call.emit(Multiply(), call.emit(f, enter), call.emit(g, new))
    if state[1] is not None:
        memory = call.emit(Add((1, 1)), memory, call.emit(Multiply(), call.emit(f, forget), state[1]))
    return call.emit(Multiply(), call.emit(f, leave), call.emit(h, memory)), memory


def gru_step(call: Call, cell: Cell, x: Variable, state: State) -> State:
    """Gates in the order update z, reset r, new n; the new state (1 - z) n + z h is n + z (h - n)."""
    f, g = cell.functions
    last = state[0]
    update, reset = (call.emit(f, gate) for gate in cell.gates(call, x, last, range(2)))
    new = call.emit(g, _candidate(call, cell, x, last, reset))
    change = scale(call, new, -1.0) if last is None else call.emit(Add((1, -1)), last, new)
    return (call.emit(Add((1, 1)), new, call.emit(Multiply(), update, change)),)


def _candidate(call: Call, cell: Cell, x: Variable, last: Variable | None, reset: Variable) -> Variable:
    if not cell.before:
        kept = None if last is None else call.emit(Multiply(), reset, last)
        return cell.gates(call, x, kept, range(2, 3))[0]
    own = call.emit(Linear(tensor(cell.inputs[2]), tensor(cell.input_bias[2])), x)
    if last is None:
        return call.emit(Add((1, 1)), own, scale(call, reset, cell.state_bias[2]))
    old = call.emit(Linear(tensor(cell.states[2]), tensor(cell.state_bias[2])), last)
    return call.emit(Add((1, 1)), own, call.emit(Multiply(), reset, old))


STEPS: dict[str, Callable[[Call, Cell, Variable, State], State]] = {
    "RNN": rnn_step,
    "LSTM": lstm_step,
    "GRU": gru_step,
}


@operator("RNN", "LSTM", "GRU", since=7)
def recurrent(call: Call) -> list[Value]:
    """Outputs: all states `[steps, directions, batch, hidden]`, the last ones, and the last cells of an LSTM."""
    _check(call)
    x, kind = call.variable(0), call.node.op_type
    direction, steps = call.attribute("direction", "forward"), range(call.value(0).shape[0])
    orders = {"forward": [steps], "reverse": [steps[::-1]], "bidirectional": [steps, steps[::-1]]}[direction]
    outputs, lasts = [], []
    for place, order in enumerate(orders):
        cell, state, found = _cell(call, place, len(orders)), _start(call, place), {}
        for step in order:
            state = STEPS[kind](call, cell, select(call, x, positions(x.shape)[step]), state)
            found[step] = state[0]
        outputs.append(_stacked(call, [found[step] for step in steps], 0))
        lasts.append(state)
    every = _joined(call, [reshape(call, y, (y.shape[0], 1, *y.shape[1:])) for y in outputs], 1)
    return [every, *(_stacked(call, list(parts), 0) for parts in zip(*lasts, strict=True))]


def _check(call: Call) -> None:
    for name, plain in (("clip", None), ("input_forget", 0), ("layout", 0)):
        if call.attribute(name, plain) != plain:
            raise UnsupportedError(f"attribute '{name}' is not supported")
    if call.has(4) and (call.constant(4, "lengths") != call.value(0).shape[0]).any():
        raise UnsupportedError("sequences of different lengths are not supported")
    if call.has(7):
        raise UnsupportedError("peepholes are not supported")


def _cell(call: Call, place: int, directions: int) -> Cell:
    kind, inputs, states = call.node.op_type, call.constant(1, "weights")[place], call.constant(2, "weights")[place]
    gates, hidden = GATES[kind], states.shape[1]
    bias = call.constant(3, "bias")[place] if call.has(3) else np.zeros(2 * gates * hidden)
    names = [_text(name) for name in call.attribute("activations", DEFAULTS[kind] * directions)]
    own = names[place * len(DEFAULTS[kind]) :][: len(DEFAULTS[kind])]
    if unknown := [name for name in own if name not in ACTIVATIONS]:
        raise UnsupportedError(f"activation '{unknown[0]}' is not supported in it, only {', '.join(ACTIVATIONS)}")
    input_bias, state_bias = bias.reshape(2, gates, hidden)
    return Cell(
        inputs.reshape(gates, hidden, -1),
        states.reshape(gates, hidden, hidden),
        input_bias,
        state_bias,
        tuple(ACTIVATIONS[name] for name in own),
        bool(call.attribute("linear_before_reset", 0)),
    )


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _start(call: Call, place: int) -> State:
    """The initial state of a direction."""
    found: list[Variable | None] = []
    for index in (5, 6)[: 2 if call.node.op_type == "LSTM" else 1]:
        given = call.variable(index) if call.has(index) else None
        found.append(None if given is None else select(call, given, positions(given.shape)[place]))
    return tuple(found)


def _stacked(call: Call, values: list[Variable | None], axis: int) -> Variable:
    """Side by side along a new axis."""
    present = [value for value in values if value is not None]
    wide = [reshape(call, value, (*value.shape[:axis], 1, *value.shape[axis:])) for value in present]
    return _joined(call, wide, axis)


def _joined(call: Call, values: list[Variable], axis: int) -> Variable:
    if len(values) == 1:
        return values[0]
    return call.emit(Concat(axis, tuple(value.shape[axis] for value in values)), *values)
