"""Parser of VNN-LIB 1.0. Every construct is turned into its value when its parenthesis closes; nothing recurses, so
that nesting may be as deep as memory allows. What is not understood is refused where it stands, never skipped.

Grammar, in SMT-LIB notation: `declare-const` and `declare-fun` of `X_i` and `Y_j` as Real, `assert`, `and`, `or`,
`not`, `<=`, `>=`, `<`, `>`, `=`, and `+`, `-`, `*` with a linear result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from verifier.errors import PropertyError
from verifier.frontend.vnnlib.formula import (
    ONE,
    ZERO,
    Bound,
    Formula,
    Linear,
    Term,
    add,
    compare,
    conjunction,
    disjunction,
    multiply,
)
from verifier.frontend.vnnlib.tokens import (
    ASSERTION,
    ATOM,
    CLOSE,
    DECLARATION,
    LEXEME,
    OPEN,
    SYMBOL,
    fault,
    number,
)

_COMMANDS = frozenset({"assert", "declare-const", "declare-fun"})
_COMPARISONS = frozenset({"<=", ">=", "<", ">", "="})
_FORMULAS = _COMPARISONS | {"and", "or", "not"}
_ARITHMETIC = frozenset({"+", "-", "*"})
_OPERATORS = _COMMANDS | _FORMULAS | _ARITHMETIC

_INSIDE: dict[str | None, frozenset[str]] = (
    {None: _COMMANDS, "declare-const": frozenset(), "declare-fun": frozenset()}
    | dict.fromkeys(("assert", "and", "or", "not"), _FORMULAS)
    | dict.fromkeys(_COMPARISONS | _ARITHMETIC, _ARITHMETIC)
)
"""The operators that may open a parenthesis inside of each operator; None is the top level."""

_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]*)")
_REMEMBERED = 1 << 16


@dataclass(frozen=True)
class Statement:
    """The numbers of declared inputs and outputs, and the assertions, all of which must hold."""

    input_size: int
    output_size: int
    assertions: tuple[Formula, ...]


@dataclass(slots=True, eq=False)
class _Frame:
    """An open parenthesis; `negated` counts for the formulas directly inside."""

    offset: int
    head: str | None = None
    negated: bool = False
    arguments: list[Any] = field(default_factory=list)


def parse(text: str, name: str) -> Statement:
    return _Parser(text, name).run()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.frames: list[_Frame] = []
        self.assertions: list[Formula] = []
        self.variables: dict[str, tuple[bool, int]] = {}  # whether it is an output, and its index
        self.known: dict[str, Term] = {}  # of symbols that were met: often there are only 256 numbers

    def run(self) -> Statement:
        for match in LEXEME.finditer(self.text):
            kind = match.lastindex
            if kind == ASSERTION:
                self.assertion(match)
            elif kind == DECLARATION:
                self.declaration(match)
            elif kind == ATOM:
                self.atom(match)
            elif kind == OPEN:
                self.open(match.start())
            elif kind == CLOSE:
                self.close(match.start())
            elif kind == SYMBOL:
                self.symbol(match[SYMBOL], match.start())
        if self.frames:
            self.fail(self.frames[-1].offset, "this parenthesis is never closed; the file may be truncated")
        return Statement(self.declared("X"), self.declared("Y"), tuple(self.assertions))

    def fail(self, offset: int, message: str) -> NoReturn:
        raise fault(self.name, self.text, offset, message)

    def assertion(self, match: re.Match[str]) -> None:
        """An assertion of an atom in one piece: the same steps as its lexemes one by one."""
        if self.frames:
            self.refuse_inside("assert", match)
        operator, left, right = match.group(1, 2, 3)
        variable = self.variables.get(left)
        if variable is None or variable[0] or operator == "=":
            first, second = self.term(left, match.start(2)), self.term(right, match.start(3))
            self.assertions.append(compare(operator, first, second, False))
            return
        second = self.term(right, match.start(3))
        if isinstance(second, Linear):
            self.assertions.append(compare(operator, self.term(left, match.start(2)), second, False))
        else:  # a bound of an input, which is what most are: `compare` says the same
            self.assertions.append(Bound(variable[1], operator[0] == "<", second, len(operator) == 1))

    def declaration(self, match: re.Match[str]) -> None:
        """The same of a constant."""
        if self.frames:
            self.refuse_inside("declare-const", match)
        self.declare(match[DECLARATION], match.start(DECLARATION))

    def refuse_inside(self, command: str, match: re.Match[str]) -> NoReturn:
        """No operator takes a command: what its first lexemes do is the refusal."""
        self.open(match.start())
        self.explain_head(command, self.text.index(command, match.start()))

    def atom(self, match: re.Match[str]) -> None:
        """A comparison of two symbols in one piece: the same steps as its five lexemes one by one."""
        operator, left, right = match.group(5, 6, 7)
        frame = self.frames[-1] if self.frames else None
        if frame is None or frame.head is None or operator not in _INSIDE[frame.head]:
            self.open(match.start())
            self.symbol(operator, match.start(5))
        assert frame is not None
        first, second = self.term(left, match.start(6)), self.term(right, match.start(7))
        frame.arguments.append(compare(operator, first, second, frame.negated))

    def open(self, offset: int) -> None:
        if self.frames and self.frames[-1].head is None:
            self.explain_head("(", offset)
        self.frames.append(_Frame(offset))

    def symbol(self, text: str, offset: int) -> None:
        if not self.frames:
            self.fail(offset, f"'{_short(text)}' stands outside of all parentheses")
        frame = self.frames[-1]
        if frame.head is None:
            self.set_head(frame, text, offset)
        elif frame.head in _COMPARISONS or frame.head in _ARITHMETIC:
            frame.arguments.append(self.term(text, offset))
        elif frame.head in ("declare-const", "declare-fun"):
            frame.arguments.append((text, offset))
        else:
            self.fail(offset, f"'{frame.head}' takes constraints in parentheses, not '{_short(text)}'")

    def set_head(self, frame: _Frame, text: str, offset: int) -> None:
        parent = self.frames[-2] if len(self.frames) > 1 else None
        if text not in _INSIDE[parent.head if parent else None]:
            self.explain_head(text, offset)
        frame.head = text
        if parent is not None:
            frame.negated = parent.negated is not (text == "not") if text in _FORMULAS else False

    def explain_head(self, text: str, offset: int) -> NoReturn:
        """Why `text` cannot stand right after the innermost parenthesis."""
        outer = self.frames[-2].head if len(self.frames) > 1 else None
        if text in ("vnnlib-version", "declare-network"):
            self.fail(offset, "this is a VNN-LIB 2.0 file, which cannot be read yet; use the property's 1.0 version")
        if outer in _COMPARISONS and (text == "(" or self.is_operand(text)):
            self.fail(
                self.frames[-1].offset,
                f"the operands of '{outer}' stand in an extra pair of parentheses, so the file is malformed; "
                f"remove that pair: ({outer} A B)",
            )
        if text == "(":
            self.fail(offset, "an operator was expected after '(', not another '('")
        allowed = ", ".join(sorted(_INSIDE[outer])) or "no parentheses"
        place = f"inside of '{outer}'" if outer else "at the top level"
        what = "cannot stand here" if text in _OPERATORS else "is not an operator of VNN-LIB 1.0"
        self.fail(offset, f"'{_short(text)}' {what}; expected {place}: {allowed}")

    def is_operand(self, text: str) -> bool:
        try:
            return _VARIABLE.fullmatch(text.removeprefix("-")) is not None or number(text) is not None
        except ValueError:
            return True

    def term(self, text: str, offset: int) -> Term:
        """The variable, negated variable `-X_0`, or number that a symbol stands for."""
        term = self.known.get(text)
        if term is None:
            term = self.new_term(text, offset)
            if len(self.known) < _REMEMBERED:
                self.known[text] = term
        return term

    def new_term(self, text: str, offset: int) -> Term:
        variable = self.variables.get(text)
        if variable is not None:
            return Linear({variable: ONE}, ZERO)
        try:
            value = number(text)
        except ValueError as error:
            self.fail(offset, f"{error}; shorten it")
        if value is not None:
            return value
        if text[0] == "-" and text[1:] in self.variables:
            return Linear({self.variables[text[1:]]: -ONE}, ZERO)
        if _VARIABLE.fullmatch(text.removeprefix("-")):
            self.fail(offset, f"variable '{_short(text.removeprefix('-'))}' is used but not declared before")
        self.fail(offset, f"'{_short(text)}' is neither a number nor a variable X_i or Y_j")

    def close(self, offset: int) -> None:
        if not self.frames:
            self.fail(offset, "this ')' closes nothing")
        frame = self.frames.pop()
        head, arguments = frame.head, frame.arguments
        parent = self.frames[-1] if self.frames else None
        if head is None:
            if parent is None or parent.head != "declare-fun":
                self.fail(frame.offset, "these parentheses are empty")
            parent.arguments.append(("()", frame.offset))
        elif head in ("declare-const", "declare-fun"):
            self.check_declaration(frame)
            self.declare(*frame.arguments[0])
        else:
            self.check_count(frame)
            if parent is None:
                self.assertions += arguments
            else:
                parent.arguments.append(self.value(frame))

    def check_count(self, frame: _Frame) -> None:
        head, count = frame.head, len(frame.arguments)
        needed = 2 if head in _COMPARISONS else 1 if head in ("assert", "not") else None
        if (needed is None and not count) or (needed is not None and count != needed):
            wanted = "at least one operand" if needed is None else f"{needed} operand{'s' if needed > 1 else ''}"
            self.fail(frame.offset, f"'{head}' takes {wanted}, not {count}")

    def value(self, frame: _Frame) -> Formula | Term:
        head, arguments = frame.head, frame.arguments
        if head in _COMPARISONS:
            return compare(head, arguments[0], arguments[1], self.frames[-1].negated)
        if head in ("and", "or"):
            return conjunction(arguments) if (head == "and") is not frame.negated else disjunction(arguments)
        if head == "not":
            return arguments[0]
        if head == "*":
            product = multiply(arguments)
            if product is None:
                self.fail(
                    frame.offset, "this product of two terms with variables is not linear, which is not supported"
                )
            return product
        if head == "-" and len(arguments) == 1:
            return add([(-ONE, arguments[0])])
        return add(zip([ONE] + [ONE if head == "+" else -ONE] * (len(arguments) - 1), arguments, strict=True))

    def check_declaration(self, frame: _Frame) -> None:
        texts = [text for text, _ in frame.arguments]
        shape = ["Real"] if frame.head == "declare-const" else ["()", "Real"]
        if not texts or texts[1:] != shape:
            self.fail(frame.offset, f"a declaration reads ({frame.head} X_0 {' '.join(shape)})")

    def declare(self, variable: str, offset: int) -> None:
        found = _VARIABLE.fullmatch(variable)
        if found is None:
            self.fail(
                offset, f"'{_short(variable)}' is not a name of a variable: inputs are X_0, X_1, ..., outputs Y_0, ..."
            )
        if variable in self.variables:
            self.fail(offset, f"variable '{variable}' is declared twice")
        if len(found[2]) > 12:
            self.fail(offset, f"the index of '{_short(variable)}' is too large")
        self.variables[variable] = found[1] == "Y", int(found[2])

    def declared(self, letter: str) -> int:
        """How many variables of this letter there are; their indices must be consecutive from 0."""
        count = sum(1 for name in self.variables if name[0] == letter)
        for index in range(count):
            if f"{letter}_{index}" not in self.variables:
                raise PropertyError(
                    f"{self.name}: {letter}_{index} is not declared, though larger indices are; "
                    "they must be consecutive from 0"
                )
        return count


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
