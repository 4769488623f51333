"""Taps on a pipeline that is otherwise left alone: they hear the calls of a method, and of its
scheduler whichever that is.

A tap only reads. What it puts on an object it takes off again, an exception included, and of nested
taps each removes its own alone. A copy of a tapped object, made in the block by ``copy`` or by
``pickle``, is a clean one: nothing of the tap is on it."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch import nn

from xhat.hooks.points.compiled import is_compiled
from xhat.hooks.points.names import denoisers_of


class Listener(Protocol):
    """Called around a method: ``before`` with its arguments, ``after`` with its result too."""

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...
    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None: ...


class Weakly:
    """A listener that is held weakly: a tap does not keep alive who listens."""

    def __init__(self, listener: Listener) -> None:
        self.listener = weakref.ref(listener)

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        listener = self.listener()
        if listener is not None:
            listener.before(args, kwargs)

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        listener = self.listener()
        if listener is not None:
            listener.after(args, kwargs, result)


@contextmanager
def listening(owner: Any, method: str, listener: Listener) -> Iterator[None]:
    """Have ``listener`` hear every call of ``owner.method`` for as long as the block runs.

    All listeners of a method share one wrapper on the instance. It has the signature of the method,
    which pipelines inspect before they pass ``generator`` or ``eta``; the last listener takes it
    away."""
    wrapper = vars(owner).get(method)
    if not hasattr(wrapper, "xhat_listeners"):
        wrapper = _wrapper(owner, method)
        setattr(owner, method, wrapper)
    listeners = wrapper.xhat_listeners
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)
        if not listeners:
            wrapper.xhat_restore()


def _wrapper(owner: Any, method: str) -> Any:
    original, on_instance = getattr(owner, method), method in vars(owner)
    listeners: list[Listener] = []
    stack = ExitStack()

    @functools.wraps(original)
    def heard(*args: Any, **kwargs: Any) -> Any:
        for listener in tuple(listeners):
            listener.before(args, kwargs)
        result = original(*args, **kwargs)
        for listener in tuple(listeners):
            listener.after(args, kwargs, result)
        return result

    def untapped(state: dict[str, Any]) -> None:
        del state[method]
        if on_instance:
            state[method] = original

    def restore() -> None:
        stack.close()
        if on_instance:
            setattr(owner, method, original)
        else:
            delattr(owner, method)

    stack.enter_context(clean_copies(owner, untapped))
    heard.xhat_listeners = listeners  # type: ignore[attr-defined]
    heard.xhat_restore = restore  # type: ignore[attr-defined]
    return heard


@contextmanager
def clean_copies(owner: Any, clean: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Copies and pickles of ``owner`` made in the block have the attributes that ``clean`` leaves.

    ``copy``, ``deepcopy`` and ``pickle`` ask an object for its state by ``__getstate__``, on the
    instance before the class."""
    state = vars(owner).get("__getstate__")
    if not isinstance(state, _CleanState):
        state = _CleanState(owner)
        object.__setattr__(owner, "__getstate__", state)
    state.cleaners.append(clean)
    try:
        yield
    finally:
        state.cleaners.remove(clean)
        if not state.cleaners:
            object.__delattr__(owner, "__getstate__")


class _CleanState:
    """The ``__getstate__`` of an object whose copies are to be clean."""

    def __init__(self, owner: Any) -> None:
        self.owner = weakref.ref(owner)
        self.cleaners: list[Callable[[dict[str, Any]], None]] = []

    def __call__(self) -> Any:
        owner = self.owner()
        state: dict[str, Any] = dict(type(owner).__getstate__(owner))  # type: ignore
        del state["__getstate__"]
        for clean in reversed(self.cleaners):
            clean(state)
        return state


@contextmanager
def hooked(
    module: nn.Module, register: Callable[..., Any], *hook: Any, **how: Any
) -> Iterator[None]:
    """A hook on ``module`` for as long as the block runs: ``register(*hook, **how)`` puts it there.

    ``register`` is one of the module's methods, such as ``module.register_forward_hook``."""
    handle = register(*hook, **how)

    def unhooked(state: dict[str, Any]) -> None:
        for name in [n for n in state if n.startswith("_forward_") and "hooks" in n]:
            state[name] = type(state[name])(
                (key, value) for key, value in state[name].items() if key != handle.id
            )

    with clean_copies(module, unhooked):
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def listening_to_scheduler(pipe: Any, listeners: Mapping[str, Listener]) -> Iterator[None]:
    """Have ``listeners`` (by method) hear the scheduler that the pipeline has, whichever that is.

    A scheduler put in its place is noticed when the denoiser is next evaluated, and begins a new
    call: the listener of ``set_timesteps`` hears of it. A compiled denoiser cannot say, and a
    scheduler that was exchanged there is warned of at the end."""
    taps = ExitStack()
    networks = [n for n in denoisers_of(pipe) if not is_compiled(n)]
    tapped: list[Any] = []

    def follow(*_: Any) -> None:
        if tapped and tapped[-1] is pipe.scheduler:
            return
        if tapped:
            taps.close()
            listeners["set_timesteps"].before((), {})
        tapped[:] = [pipe.scheduler]
        for method, listener in listeners.items():
            taps.enter_context(listening(pipe.scheduler, method, listener))

    with ExitStack() as stack, taps:
        follow()
        for network in networks:
            stack.enter_context(
                hooked(network, network.register_forward_pre_hook, follow, prepend=True)
            )
        yield
        if not networks and tapped[-1] is not pipe.scheduler:
            warnings.warn(
                f"{type(pipe).__name__} was given another scheduler inside the block, whose steps "
                "were not heard: its denoiser is compiled. Open a new block after the exchange",
                stacklevel=4,
            )


@contextmanager
def quiet(pipe: Any) -> Iterator[None]:
    """The pipeline's own progress bar is off for as long as the block runs."""
    missing = object()
    before = getattr(pipe, "_progress_bar_config", missing)
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(
            **{**(before if isinstance(before, dict) else {}), "disable": True}
        )
    try:
        yield
    finally:
        if before is not missing:
            pipe._progress_bar_config = before
        elif hasattr(pipe, "_progress_bar_config"):
            del pipe._progress_bar_config
