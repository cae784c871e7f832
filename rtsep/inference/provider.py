"""Opening an ONNX Runtime session on the provider that was asked for, or saying why not.

ONNX Runtime falls back to the CPU without an exception, and talks about it on stderr, on stdout or in a
Python warning, depending on the build. Here the outcome is compared with the request, and the talk is
one string.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rtsep.errors import ModelFileError, ProviderError, UsageError, suggest

Provider = Literal["auto", "cpu", "cuda"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SHORT = {_CPU: "cpu", _CUDA: "cuda"}
_FATAL, _WARNING = 4, 2
# TensorFloat-32 rounds to 10 bits of mantissa: too coarse for the parity of 1e-4 an exported model promises.
_CUDA_OPTIONS = {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


@dataclass(frozen=True)
class OpenedSession:
    """An ONNX Runtime session and what became of the wish for a provider.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
    provider : str
        ``"cpu"`` or ``"cuda"``: what the session really runs on.
    note : str or None
        Why ``"auto"`` did not take CUDA; None when there is nothing to say.
    """

    session: Any
    provider: str
    note: str | None


def open_session(path: Path, provider: str, threads: int) -> OpenedSession:
    """Load a graph. Allocates, takes from milliseconds to seconds, and holds the GIL for most of it.

    Parameters
    ----------
    path : pathlib.Path
        The ``.onnx`` file.
    provider : str
        ``"cpu"``; ``"cuda"``, an error when not obtained; ``"auto"``, CUDA where it works and else the CPU.
    threads : int
        Intra-op threads, 1 or more.

    Raises
    ------
    UsageError
        Unknown provider, or fewer than one thread.
    ProviderError
        ``"cuda"`` was asked for and not obtained.
    ModelFileError
        ONNX Runtime cannot load the graph.
    """
    allowed = get_args(Provider)
    if provider not in allowed:
        raise UsageError(
            f"Unknown provider {provider!r};{suggest(provider, allowed)} Allowed are {', '.join(allowed)}."
        )
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads is {threads!r}; an integer of 1 or more is needed.")
    if provider == "cpu":
        return OpenedSession(_load_on_cpu(path, threads), "cpu", None)

    session, reason = _try_cuda(path, threads)
    if session is not None and reason is None:
        return OpenedSession(session, "cuda", None)
    # A graph that cannot be loaded anywhere is the file's fault and not the provider's.
    session = session or _load_on_cpu(path, threads)
    if provider == "cuda":
        raise ProviderError(
            f"The provider 'cuda' was asked for and not obtained: {reason}. "
            "Use the provider 'cpu' or 'auto', or see what is there with: rtsep doctor"
        )
    return OpenedSession(session, "cpu", f"CUDA is not used: {reason}")


def _try_cuda(path: Path, threads: int) -> tuple[Any, str | None]:
    """Return the session, if one could be made, and why it is not on CUDA, if it is not."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    if _CUDA not in available:
        return None, f"onnxruntime {ort.__version__} has only {', '.join(available)}"
    said = ""
    try:
        with _quiet() as talk:
            # Finds the CUDA libraries that pip installed beside onnxruntime-gpu; it prints what is missing.
            if hasattr(ort, "preload_dlls"):
                ort.preload_dlls()
            said = talk.getvalue()
            session = _load(path, threads, [(_CUDA, _CUDA_OPTIONS), _CPU])
    except Exception as error:
        return None, _one_line(str(error))
    if session.get_providers()[0] == _CUDA:
        return session, None
    detail = f" ({_one_line(said)})" if said.strip() else ""
    return (
        session,
        f"onnxruntime {ort.__version__} could not load its CUDA libraries or find a device{detail}",
    )


def _load_on_cpu(path: Path, threads: int) -> Any:
    try:
        with _quiet():
            return _load(path, threads, [_CPU])
    # The exceptions of ONNX Runtime's binding have no base of their own below Exception.
    except Exception as error:
        raise ModelFileError(
            f"{os.fspath(path)} cannot be loaded: {_one_line(str(error))}. Export it again with: python -m export"
        ) from error


def _load(path: Path, threads: int, providers: Sequence[Any]) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL
    # A spinning pool would take the core that the audio callback needs between two hops.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # session.set_denormal_as_zero stays off: it sticks to the thread that makes the first session, so that
    # the live and the offline path, which run on different threads, would no longer be equal bit for bit.
    return ort.InferenceSession(os.fspath(path), options, providers=list(providers), enable_fallback=0)


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep what ONNX Runtime says while it loads off stderr, stdout and Python's warnings."""
    import onnxruntime as ort

    talk = io.StringIO()
    ort.set_default_logger_severity(_FATAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(talk):
            warnings.simplefilter("ignore")
            yield talk
    finally:
        # There is no getter; WARNING is what ONNX Runtime starts with.
        ort.set_default_logger_severity(_WARNING)


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def short_name(session: Any) -> str:
    """Return ``"cpu"`` or ``"cuda"`` for the provider a session really uses."""
    first: str = session.get_providers()[0]
    return _SHORT.get(first, first)
