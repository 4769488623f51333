"""Mistakes that a maintainer could make, one a row: where, what stands there, what would stand
there, and the tests that must fail.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One line changed. ``tests``: file or ``file::test``, of which one must fail."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _m(file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(file, old, new, tuple(f"tests/{test}" for test in tests))


# fmt: off
MUTATIONS = (
    # hooks: noise levels and x̂₀
    _m("hooks/noise/x0.py", "return (x_t - b * model_output) / a", "return (x_t + b * model_output) / a", "hooks/noise/test_noise.py"),  # noqa: E501
    _m("hooks/noise/x0.py", "* x_t - noise * model_output", "* x_t + noise * model_output", "hooks/noise/test_noise.py"),  # noqa: E501
    _m("hooks/noise/x0.py", "towards = 1 if inverted(scheduler) else -1", "towards = -1", "hooks/noise/test_x0.py"),  # noqa: E501
    _m("hooks/noise/x0.py", "return (x_t - a * x0) / b", "return (x_t - x0) / b", "hooks/noise/test_noise.py"),  # noqa: E501
    _m("hooks/noise/x0.py", "x_t, model_output = x_t.float(), model_output.float()", "pass", "hooks/noise/test_noise.py"),  # noqa: E501
    _m("hooks/noise/levels.py", 'for name in ("step_index", "begin_index"):', 'for name in ("step_index",):', "hooks/noise/test_noise.py", "hooks/noise/test_x0.py"),  # noqa: E501
    # hooks: points and readings
    _m("hooks/points/rehearsal.py", "        vars(scheduler).update(before)\n", "", "hooks/points/test_points.py", "hooks/points/test_taps.py"),  # noqa: E501
    _m("hooks/points/rehearsal.py", "            del network.forward\n", "            pass\n", "hooks/points/test_points.py", "hooks/points/test_taps.py"),  # noqa: E501
    _m("hooks/points/taps.py", "            pipe._progress_bar_config = before\n", "            pass\n", "hooks/points/test_taps.py", "hooks/test_trace.py"),  # noqa: E501
    # hooks: identity of a run
    _m("hooks/batches.py", "return [value[i] for i in tile.prompts]", "return list(value)[: len(tile.prompts)]", "hooks/test_trace.py"),  # noqa: E501
    _m("hooks/batches.py", "call[name] = _rows(value, list(tile.prompts))", "call[name] = _rows(value, list(range(len(tile.prompts))))", "hooks/test_pairing.py"),  # noqa: E501
    # hooks: the store
    _m("hooks/store/writer.py", "        if exception[0] is None:\n            self._raise()\n", "", "hooks/store/test_store.py", "hooks/test_trace.py"),  # noqa: E501
    _m("hooks/store/writer.py", "                    self._error = error\n", "                    pass\n", "hooks/store/test_store.py", "hooks/test_trace.py"),  # noqa: E501
    _m("hooks/store/store.py", "                os.fsync(file.fileno())\n", "                pass\n", "hooks/store/test_locks.py"),  # noqa: E501
    _m("hooks/store/store.py", "            files.sweep_partial(self.path)\n", "", "hooks/store/test_store.py", "hooks/test_fuzz.py"),  # noqa: E501
    _m("hooks/store/checksums.py", '            raise self.damage(key, "is missing")\n', "            return\n", "hooks/store/test_damage.py"),  # noqa: E501
    _m("hooks/store/checksums.py", '            raise self.damage(key, "is not what was written")\n', "            return\n", "hooks/store/test_damage.py"),  # noqa: E501
    _m("hooks/store/checksums.py", "return pieces_of(key, data, inner) == expected", "return len(pieces_of(key, data, inner)) == len(expected)", "hooks/store/test_damage.py"),  # noqa: E501
    _m("hooks/store/checksums.py", 'seal.get("attributes") != _attributes(attrs)', "False", "hooks/store/test_damage.py"),  # noqa: E501
    _m("hooks/store/locks.py", "            raise StoreInUse(_refusal(store, fs.cat_file(path).decode())) from None\n", "            pass\n", "hooks/store/test_store.py"),  # noqa: E501
    _m("hooks/store/locks.py", '            raise StoreInUse(f"another run has taken over {store}: this one stops")\n', "            return\n", "hooks/store/test_locks.py"),  # noqa: E501
    _m("hooks/store/locks.py", "        raise StoreInUse(_refusal(store, _read(path))) from None\n", "        pass\n", "hooks/store/test_locks.py"),  # noqa: E501
    _m("hooks/store/whole.py", "    if root_attributes(path) is not None:", "    if False:", "hooks/test_joining.py", "hooks/store/test_store.py"),  # noqa: E501
    _m("hooks/store/writer.py", "            if self._error is None:\n                try", "            if True:\n                try", "hooks/store/test_store.py"),  # noqa: E501
    _m("hooks/joining.py", "        if a != b:\n", "        if False:\n", "hooks/test_joining.py"),
    _m("hooks/joining.py", "    if (counts > 1).any():", "    if False:", "hooks/test_joining.py"),
    # samplers
    _m("samplers/composite/scheduler.py", "        if entry.step == 0:\n", "        if True:\n", "samplers/composite/test_hybrid_equality.py", "samplers/composite/test_handover.py"),  # noqa: E501
    _m("samplers/composite/entering.py", "        scheduler.set_begin_index(position)\n", "        scheduler.set_begin_index(0)\n", "samplers/composite/test_entering.py"),  # noqa: E501
    _m("samplers/composite/entering.py", "entries[i].step >= step]", "entries[i].step > step]", "samplers/composite/test_entering.py"),  # noqa: E501
    _m("samplers/composite/scheduler.py", '    _seek(entry)\n    if hasattr(entry.scheduler, "derivatives")', '    if hasattr(entry.scheduler, "derivatives")', "samplers/composite/test_hybrid_equality.py", "samplers/composite/test_entering.py"),  # noqa: E501
    _m("samplers/plans/build.py", "    return _from_step(skipped, model, student", "    return _from_step(skipped + 1, model, student", "samplers/plans/test_plans.py", "samplers/plans/test_plan.py"),  # noqa: E501
    _m("samplers/plans/build.py", "    swapped = set(replaced)\n", "    swapped = {r + 1 for r in replaced if r + 1 < steps}\n", "samplers/plans/test_plans.py"),  # noqa: E501
    _m("samplers/plans/build.py", "names[0] if is_base else names[1]", "names[1] if is_base else names[0]", "samplers/plans/test_plans.py"),  # noqa: E501
    # zoo
    _m("zoo/load/pipelines.py", "trust_remote_code=remote_code", "trust_remote_code=True", "zoo/load/test_checkpoints.py"),  # noqa: E501
    _m("zoo/lora/fitting.py", "return float(alpha) / rank", "return 1.0", "zoo/lora/test_lora_oracles.py"),  # noqa: E501
    _m("zoo/lora/fitting.py", "return file.settings.strength(layer, rank)", "return 1.0", "zoo/lora/test_lora_oracles.py"),  # noqa: E501
    _m("zoo/lora/fitting.py", "    if not (math.isfinite(scale) and down.isfinite().all() and up.isfinite().all()):", "    if False:", "zoo/lora/test_lora_refusals.py", "zoo/lora/test_lora_files.py"),  # noqa: E501
    _m("zoo/load/embedded.py", 'late = {"timesteps": list(LATE_TIMESTEPS)} if name in CONTROLS else {}', "late = {}", "zoo/test_pairs.py"),  # noqa: E501
    _m("zoo/family/teacher.py", "return without + scale * (given - without)", "return given + scale * (given - without)", "zoo/family/test_teacher.py"),  # noqa: E501
    _m("zoo/family/teacher.py", "return a * x0 + b * eps", "return a * x0 + eps", "zoo/family/test_teacher.py"),  # noqa: E501
    _m("zoo/family/progress.py", "return len(x) ** 2 / float(((x @ x.T) ** 2).sum())", "return len(x) / float(((x @ x.T) ** 2).sum())", "zoo/family/test_progress.py"),  # noqa: E501
    _m("zoo/family/distil.py", "rows = [row for row in rows if row[\"step\"] < done]", "rows = [row for row in rows]", "zoo/family/test_trainers.py"),  # noqa: E501
    # probes
    _m("probes/features.py", "given = (part / scale + shift)", "given = (part + shift)", "probes"),
    # analysis: measures
    _m("analysis/measures/grams.py", "rows.sum() / ((n - 1) * (n - 2))", "rows.sum() / (n * (n - 2))", "analysis/measures/test_grams.py", "analysis/measures/test_similarity.py"),  # noqa: E501
    _m("analysis/measures/grams.py", "    if debiased:\n        squares", "    if False:\n        squares", "analysis/measures/test_similarity.py"),  # noqa: E501
    _m("analysis/measures/by_seed.py", "off = k * (1 - np.eye(n))", "off = k", "analysis/measures/test_by_seed.py"),  # noqa: E501
    _m("analysis/measures/by_seed.py", "slope = 1 / (mean**2 + variance)", "slope = 1 / mean**2", "analysis/measures/test_by_seed.py"),  # noqa: E501
    _m("analysis/measures/diversity.py", "k[np.triu_indices(len(k), 1)].mean()", "k[np.triu_indices(len(k), 0)].mean()", "analysis/measures/test_diversity.py"),  # noqa: E501
    _m("analysis/measures/handover_snr.py", "return log_snr + 2 * np.log(side / reference_side)", "return log_snr + np.log(side / reference_side)", "analysis/measures/test_handover_snr.py"),  # noqa: E501
    # analysis: intervals and verdicts
    _m("analysis/crossed.py", "    total = rows + columns - rest\n", "    total = rows\n", "analysis/test_crossed.py"),  # noqa: E501
    _m("analysis/crossed.py", "interval = crossed_mean(b - a, **options)", "interval = crossed_mean(a - b, **options)", "analysis/test_crossed.py"),  # noqa: E501
    _m("analysis/verdicts.py", "    if interval.high < 0:\n        return \"opposite\"\n", "", "analysis/test_verdicts.py"),  # noqa: E501
    _m("analysis/verdicts.py", "abs(float(interval.estimate)) + half < margin", "abs(float(interval.estimate)) < margin", "analysis/test_verdicts.py"),  # noqa: E501
    _m("analysis/verdicts.py", "    if size.prompts < FEWEST_PROMPTS:\n", "    if False:\n", "analysis/test_verdicts.py"),  # noqa: E501
    _m("analysis/verdicts.py", "return bool(self.interval.low > -self.margin)", "return bool(self.interval.estimate > -self.margin)", "analysis/experiments/test_sentences.py"),  # noqa: E501
    # analysis: traces, sampling, experiments
    _m("analysis/sampling/joined_grid.py", "        if not _among(sigma, every):\n            every.append(sigma)\n", "        every.append(sigma)\n", "analysis/sampling/test_joined_grid.py"),  # noqa: E501
    _m("analysis/sampling/effects.py", "        at_levels(pipe, sigmas.tolist()),\n", "        pipe,\n", "analysis/sampling/test_effects.py"),  # noqa: E501
    _m("analysis/traces/accessor.py", "np.abs(np.log(data[\"sigma\"].values / sigma))", "np.abs(np.log(data[\"sigma\"].values))", "hooks/test_joining.py"),  # noqa: E501
    _m("analysis/traces/similarity_map.py", "and gap[:, j].argmin() == i]", "]", "analysis/traces/test_maps.py"),  # noqa: E501
    _m("analysis/experiments/collapse.py", "judged = verdict(gain - late,", "judged = verdict(gain,", "analysis/experiments/test_demo.py"),  # noqa: E501
    _m("analysis/experiments/sweep.py", "base_steps=n) if n else student)", "base_steps=max(n, 1)))", "analysis/experiments/test_sweep.py"),  # noqa: E501
    # figures and commands
    _m("figures/kit/style.py", "    \"text.parse_math\": False,", "    \"text.parse_math\": True,", "figures"),  # noqa: E501
)
# fmt: on
