(function () {
  const MOST = 12;  // so many questions are answered with care
  const data = JSON.parse(document.querySelector(".data").textContent), shown = Math.min(12, data.seeds.length);
  const find = name => document.querySelector(name), sets = [...document.querySelectorAll(".set")];
  const trials = [], answers = [];
  data.prompts.forEach((_, prompt) => data.models.forEach((a, i) => data.models.slice(i + 1).forEach(b =>
    trials.push({ prompt, sides: Math.random() < 0.5 ? [a, b] : [b, a] }))));
  for (let i = trials.length - 1; i > 0; i--) {  // Fisher and Yates
    const j = Math.floor(Math.random() * (i + 1));
    [trials[i], trials[j]] = [trials[j], trials[i]];
  }
  trials.splice(MOST);
  let started;

  function show() {
    const trial = trials[answers.length];
    if (!trial) return finish();
    find(".count").textContent = `${answers.length + 1} of ${trials.length}.`;
    find(".prompt").textContent = data.prompts[trial.prompt];
    trial.sides.forEach((model, side) => {
      const set = sets[side];
      set.style.setProperty("--sheet", `url("data:image/webp;base64,${model.sheets[trial.prompt]}")`);
      set.style.setProperty("--wide", `${100 * data.seeds.length}%`);
      set.style.setProperty("--high", `${100 * model.sigma.length}%`);
      set.replaceChildren(...Array.from({ length: shown }, (_, i) => {
        const cell = document.createElement("i");
        cell.style.setProperty("--x", `${100 * i / Math.max(data.seeds.length - 1, 1)}%`);
        return cell;
      }));
    });
    started = performance.now();
  }
  function answer(varies_more) {
    const { prompt, sides } = trials[answers.length];
    answers.push({
      prompt: data.prompts[prompt], left: sides[0].key, right: sides[1].key, varies_more,
      model: { left: sides[0].key, right: sides[1].key, same: null }[varies_more],
      seconds: Math.round((performance.now() - started) / 100) / 10,
    });
    show();
  }
  function finish() {
    const text = JSON.stringify({ question: "which set varies more", seeds: data.seeds.slice(0, shown), answers }, null, 1);
    find(".ask").hidden = true; find(".end").hidden = false;
    find("textarea").value = text;
    find(".save").href = "data:application/json;charset=utf-8," + encodeURIComponent(text);
  }
  find(".answers").addEventListener("click", event => event.target.value && answer(event.target.value));
  document.addEventListener("keydown", event => {
    const key = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "same" }[event.key];
    if (key && answers.length < trials.length) { event.preventDefault(); answer(key); }
  });
  show();
})();
