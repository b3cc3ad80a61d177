"""Everything that can stop the program, and the exit code each one carries.

    VerifierError                70  internal: should not happen, please report
    ├── UsageError                2  the call itself is wrong
    ├── InputError                3  a file cannot be used as it is
    │   ├── ModelError            3  the network file: missing, corrupt, NaN weights, dynamic shapes
    │   │   ├── UnsupportedError  3  an operator, attribute or type that is not supported
    │   │   └── ReplayError       3  our graph and onnxruntime disagree on this network
    │   └── PropertyError         3  the property file: syntax, unknown variable, unbounded input
    └── BackendError              4  a solver is missing, unlicensed or failed

Exceptions mean "cannot do what was asked". Outcomes of a verification are values (`Verdict`), never exceptions.
"""

from __future__ import annotations


class VerifierError(Exception):
    """Root of all errors raised on purpose; its text is one sentence that names the fault and what to do."""

    exit_code = 70


class UsageError(VerifierError):
    exit_code = 2


class InputError(VerifierError):
    exit_code = 3


class ModelError(InputError):
    """The network cannot be read; the message names the file, and the node where there is one."""


class UnsupportedError(ModelError):
    """The network is well-formed, but uses something outside of what is supported (named, with its shape)."""


class ReplayError(ModelError):
    """The imported graph computes something else than onnxruntime does on the original file."""


class PropertyError(InputError):
    """The property cannot be used; the message names file, line and column where there are any."""


class BackendError(VerifierError):
    exit_code = 4
