(function () {
  const root = document.currentScript.closest(".xhat-wall");
  const data = JSON.parse(root.querySelector(".data").textContent);
  const [prompt, level, now, rows, detail, curve, maps] =
    ["prompt", "level", "now", "rows", "detail", "curve", "maps"].map(name => root.querySelector("." + name));
  const state = { prompt: 0, stop: data.stops.length - 1, seed: null };  // what was drawn, first
  const log = sigma => Math.log(Math.max(sigma, 1e-3));
  const round = sigma => Number(sigma.toPrecision(2));
  const make = (tag, parent, name = "") => {
    const element = document.createElement(tag);
    element.className = name; parent.append(element);
    return element;
  };

  // what a model has in mind at a noise level: x̂₀ of its last step at or above it
  function stepAt(model, sigma) {
    const below = model.sigma.findIndex(s => s < sigma * 0.99);
    return below < 0 ? model.sigma.length - 1 : Math.max(below - 1, 0);
  }
  function said(model, step, sigma) {
    const at = model.sigma[step], head = `step ${step + 1} of ${model.sigma.length}, σ = ${round(at)}`;
    if (Math.abs(at / sigma - 1) < 0.01 || at === sigma) return head;
    return head + (at < sigma ? " (its first)" : ` (no step at ${round(sigma)})`);
  }

  root.style.setProperty("--wanted", Math.min(12, data.seeds.length));
  // rows of cells, pictures of one seed, maps: made once, then only moved
  for (const model of data.models) {
    const row = make("section", rows, "row");
    row.style.setProperty("--model", model.colour);
    const head = make("p", row);
    make("strong", head).textContent = model.name;
    model.text = make("small", head);
    model.cells = make("div", row, "cells");
    data.seeds.forEach((seed, i) => {
      const cell = make("button", model.cells, "cell");
      cell.type = "button"; cell.tabIndex = i ? -1 : 0;
      cell.setAttribute("aria-label", `${model.name}, seed ${seed}`);
      cell.style.setProperty("--x", place(i, data.seeds.length));
      cell.addEventListener("click", () => set({ seed: state.seed === i ? null : i }));
    });
    const one = make("figure", detail.querySelector(".pictures"));
    one.style.setProperty("--model", model.colour);
    model.one = make("i", one);
    make("figcaption", one).textContent = model.name;
    const map = make("div", maps);
    map.textContent = model.name;
    map.innerHTML += '<svg viewBox="-4 -4 108 108" role="img"></svg>';
    model.map = map.querySelector("svg");
    model.map.setAttribute("aria-label", `seeds of ${model.name}`);
  }
  function place(i, n) { return n < 2 ? "0%" : `${100 * i / (n - 1)}%`; }

  function sheets() {  // a sheet has a row a step and a column a seed
    for (const model of data.models)
      for (const box of [model.cells, model.one]) {
        box.style.setProperty("--sheet", `url("data:image/webp;base64,${model.sheets[state.prompt]}")`);
        box.style.setProperty("--wide", `${100 * data.seeds.length}%`);
        box.style.setProperty("--high", `${100 * model.sigma.length}%`);
        box.style.setProperty("--shape", data.shape);
      }
  }

  const x = sigma => 30 + 280 * (log(data.stops[0]) - log(sigma)) /
    ((log(data.stops[0]) - log(data.stops.at(-1))) || 1);
  function draw(sigma) {
    const all = data.models.flatMap(m => m.vendi[state.prompt]).filter(v => v !== null);
    const top = Math.max(1.2, ...all), y = v => 160 - 145 * (v - 1) / (top - 1);
    const ticks = [1, (1 + top) / 2, top].map(v =>
      `<text x="26" y="${y(v) + 4}" text-anchor="end">${v.toFixed(1)}</text>`);
    const marks = [data.stops[0], Math.sqrt(data.stops[0] * Math.max(data.stops.at(-1), 1e-3)), data.stops.at(-1)]
      .map((s, i) => `<text x="${x(s)}" y="175" text-anchor="${["start", "middle", "end"][i]}">${round(s)}</text>`);
    const lines = data.models.map(model => {
      const v = model.vendi[state.prompt], step = stepAt(model, sigma);
      const points = v.map((value, i) => value === null ? "" : `${x(model.sigma[i])},${y(value)}`).join(" ");
      const dot = v[step] === null ? "" :
        `<circle cx="${x(model.sigma[step])}" cy="${y(v[step])}" r="4" fill="${model.colour}"/>`;
      return `<polyline points="${points}" stroke="${model.colour}" stroke-width="2"/>${dot}`;
    });
    curve.innerHTML = `<path d="M30 15V160H310" stroke="currentColor" opacity=".4"/>` +
      `<path d="M${x(sigma)} 10V160" stroke="currentColor" stroke-dasharray="3 3"/>` +
      ticks.join("") + marks.join("") + lines.join("") + '<text x="170" y="188" text-anchor="middle">noise level σ</text>';
    for (const model of data.models) {
      const step = stepAt(model, sigma), places = model.place[state.prompt];
      model.map.innerHTML = data.seeds.map((_, i) => {
        const path = places.slice(0, step + 1).map(at => at[i].join(",")).join(" ");
        const [cx, cy] = places[step][i], mine = state.seed === i;
        return `<polyline points="${path}" stroke="${model.colour}" stroke-width="${mine ? 2 : .6}" ` +
          `opacity="${mine ? 1 : .45}"/><circle cx="${cx}" cy="${cy}" r="${mine ? 4 : 2.2}" fill="${mine ? "#E69F00" : model.colour}"/>`;
      }).join("");
    }
  }

  function show() {
    const sigma = data.stops[state.stop];
    level.value = state.stop; prompt.value = state.prompt;
    now.textContent = `σ = ${round(sigma)}`;
    level.setAttribute("aria-valuetext", now.textContent);
    for (const model of data.models) {
      const step = stepAt(model, sigma), vendi = model.vendi[state.prompt][step];
      const count = vendi === null ? "" : ` · Vendi ${vendi.toFixed(2)}`;
      model.text.textContent = ` ${said(model, step, sigma)}${count}`;
      model.cells.style.setProperty("--y", place(step, model.sigma.length));
      [...model.cells.children].forEach((cell, i) => cell.classList.toggle("chosen", i === state.seed));
      model.one.style.setProperty("--y", place(step, model.sigma.length));
      model.one.style.setProperty("--x", place(state.seed || 0, data.seeds.length));
    }
    detail.hidden = state.seed === null;
    detail.querySelector(".said").textContent = `Seed ${data.seeds[state.seed]} in every model:`;
    draw(sigma);
  }
  const between = (value, last) => Math.min(Math.max(value, 0), last);
  function set(changed, keep = true) {
    const before = state.prompt;
    Object.assign(state, changed);
    state.stop = between(state.stop, data.stops.length - 1);
    if (state.seed !== null) state.seed = between(state.seed, data.seeds.length - 1);
    if (state.prompt !== before) sheets();
    show();
    if (keep && location.protocol !== "about:") history.replaceState(null, "", link());
  }

  // the address: #wall&prompt=0&sigma=4.12&seed=7
  function link() {
    const seed = state.seed === null ? "" : `&seed=${data.seeds[state.seed]}`;
    return `#wall&prompt=${state.prompt}&sigma=${data.stops[state.stop]}${seed}`;
  }
  function nearest(sigma) {
    const far = data.stops.map(s => Math.abs(log(s) - log(sigma)));
    return far.indexOf(Math.min(...far));
  }
  function follow() {
    if (!location.hash.startsWith("#wall&")) return;
    const asked = new URLSearchParams(location.hash.slice(6)), sigma = parseFloat(asked.get("sigma"));
    const seed = data.seeds.indexOf(Number(asked.get("seed") ?? NaN));
    const at = { seed: seed < 0 ? null : seed };
    if (sigma >= 0) at.stop = nearest(sigma);
    if (asked.get("prompt") in data.prompts) at.prompt = Number(asked.get("prompt"));
    set(at, false);
    root.scrollIntoView();
  }

  function along(event) {
    if (event.type === "pointermove" && event.pointerType !== "mouse" && !event.buttons) return;
    const box = curve.getBoundingClientRect(), wanted = 320 * (event.clientX - box.left) / box.width;
    const far = data.stops.map(s => Math.abs(x(s) - wanted));
    set({ stop: far.indexOf(Math.min(...far)) });
  }
  const keys = {
    ArrowLeft: () => ({ stop: state.stop - 1 }), ArrowRight: () => ({ stop: state.stop + 1 }),
    Home: () => ({ stop: 0 }), End: () => ({ stop: data.stops.length - 1 }),
    ArrowUp: () => ({ seed: (state.seed ?? 1) - 1 }), ArrowDown: () => ({ seed: (state.seed ?? -1) + 1 }),
    Escape: () => ({ seed: null }),
  };
  const listener = document.body.classList.contains("page") ? document : root;
  listener.addEventListener("keydown", event => {
    if (!(event.key in keys) || event.target === prompt || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    set(keys[event.key]());
  });
  level.addEventListener("input", () => set({ stop: Number(level.value) }));
  prompt.addEventListener("change", () => set({ prompt: Number(prompt.value) }));
  curve.addEventListener("pointermove", along);
  curve.addEventListener("pointerdown", along);
  window.addEventListener("hashchange", follow);
  sheets(); show(); follow();
})();
