"""Experiments: one file a question, each a function of one frozen config that gives a ``Result``.

An experiment is written like this, and commands, notebooks and benchmarks all use it so::

    @dataclass(frozen=True, kw_only=True)
    class Swaps(Setting):                            # what is asked: models, prompts, seeds, …
        prompts: Sequence[str] = OPEN_PROMPTS[:8]
        guided_scale: float | None = None

    def measure_swaps(config: Swaps, *, cache: Path | None = None) -> Result:
        pair = config.models()                       # a Pair, or the name of one
        ...
        return Result("swaps", data, table, sentences, config.settings())

    measure_swaps(Swaps(pair="demo/dmd"), cache=out / "cache").save(out)

- The config (:class:`~xhat.analysis.experiments.setting.Setting` and fields of its own) says all
  that the numbers depend on; where files go is no part of it.
- ``data`` has one dataset a figure, under the figure's name, and ``"measured"`` where there are
  values by arm, prompt and seed; intervals are a dimension ``bound``
  (:mod:`xhat.analysis.intervals`).
- ``table`` is the one table to be read first; ``sentences`` come from
  :mod:`xhat.analysis.verdicts`, the primary contrast first. Both are made from ``data`` alone.
- What takes long is kept by :class:`~xhat.analysis.sampling.cache.Cache` below ``cache``, or traced
  into a store below it, so that a run that was stopped goes on.
- A command (``src/xhat/commands/``) declares options, makes the config, calls the function, saves,
  draws and prints: nothing else.
"""
