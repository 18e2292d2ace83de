// How much signal does each schedule leave, and what do the few steps that a sampler keeps look like?
explorer("schedules", (box, data) => {
  const powers = (low, high, by) => {
    const list = [];
    for (let n = low; n <= high; n += by) list.push([Number(`1e${n}`), n === 0 ? "1" : ["10", kit.sup(String(n).replace("-", "\u2212"))]]);
    return list;
  };
  const tex = { alpha_bar: "\\bar\\alpha_t", beta: "\\beta_t", posterior_variance: "\\tilde\\beta_t", snr: "\\mathrm{SNR}_t" };
  const axes = {
    snr: { y: [1e-6, 1e5], log: "y", yticks: powers(-6, 4, 2), ylabel: "signal-to-noise ratio" },
    alpha_bar: { y: [0, 1.02], yticks: [0, 0.25, 0.5, 0.75, 1], ylabel: "share of signal" },
    beta: { y: [1e-5, 1.2], log: "y", yticks: powers(-5, 0, 1), ylabel: "noise that a step adds" },
    posterior_variance: { y: [1e-5, 1.2], log: "y", yticks: powers(-5, 0, 1), ylabel: "variance of the posterior" },
  };
  const kinds = ["schedule", "schedule dashdot", "schedule dashed", "schedule dotted", "noise"];
  const colours = kinds.map((kind) => kind.split(" ")[0]);
  const stage = kit.make("div");
  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(stage, controls);
  const shown = kit.choice(controls, {
    label: "Shown", value: "snr",
    options: { snr: "SNR", alpha_bar: kit.tex(tex.alpha_bar), beta: kit.tex(tex.beta), posterior_variance: kit.tex(tex.posterior_variance) },
  }, draw);
  const steps = kit.choice(controls, {
    label: "Steps kept", value: "1000", options: { 1000: "all", 50: "50", 20: "20", 10: "10" },
  }, draw);
  const every = data.steps["1000"].t;
  const time = kit.slider(controls, { label: ["step ", kit.tex("t")], values: every, value: 500 }, read);

  const columns = ["snr", "alpha_bar", "beta", "posterior_variance"];
  const body = kit.make("tbody");
  const heading = kit.make("th", { scope: "col" });
  box.append(kit.make("table", { class: "explorer-readout" },
    kit.make("thead", {}, kit.make("tr", {}, heading, ...columns.map((name) => kit.make("th", { scope: "col" }, kit.tex(tex[name]))))), body));
  const rows = data.names.map((name, i) => {
    const box = kit.make("input", { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", draw);
    const swatch = kit.make("svg:svg", { viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" },
      kit.make("svg:path", { d: "M0 4H28", class: `line ${kinds[i]}` }));
    const cells = columns.map(() => kit.make("td"));
    body.append(kit.make("tr", {}, kit.make("th", { scope: "row" }, kit.make("label", {}, box, swatch, kit.make("span", {}, name))), ...cells));
    return { box, cells };
  });
  kit.caption(box, kit.make("strong", {}, "Which schedule leaves more signal? "),
    "Cosine and sigmoid keep it longest and are almost one curve; linear is noisier than these for most of the way. Rescaled to end at zero, it leaves nothing at all. ",
    "Keep few steps: the levels stay on their curves, but each ", kit.tex("\\beta_t"), " is now that of a whole stride.");

  let plot, cursor, marks;
  function draw() {
    stage.replaceChildren();
    const { y } = axes[shown.value];
    plot = kit.plot(stage, {
      height: 320, x: [0, 1000], xticks: [0, 250, 500, 750, 1000], xlabel: "t", ...axes[shown.value],
      alt: "Five noise schedules over the steps t from 0 to 1000. A vertical line, which can be dragged, marks the step of the numbers below.",
    });
    plot.svg.style.touchAction = "pan-y"; // up and down still scrolls the page
    plot.drag((t) => { time.value = t; });
    cursor = plot.line([0, 0], y, "ink thin");
    marks = data.names.map((name, i) => {
      if (!rows[i].box.checked) return null;
      const inside = (table) => table.t.flatMap((t, j) => {
        const value = table[name][shown.value][j];
        return value >= y[0] && value <= y[1] ? [[t, value]] : [];
      });
      const curve = inside(data.steps["1000"]);
      plot.line(curve.map(([t]) => t), curve.map(([, value]) => value), kinds[i]);
      const kept = steps.value === "1000" ? [] : inside(data.steps[steps.value]);
      kept.forEach(([t, value]) => plot.dot(t, value, `${colours[i]} hollow`, null, 3));
      return plot.dot(0, y[1], colours[i], null, 4);
    });
    read();
  }
  function read() {
    const table = data.steps[steps.value], { y } = axes[shown.value];
    const apart = (t) => Math.abs(t - time.value);
    const row = table.t.reduce((best, t, i) => (apart(t) < apart(table.t[best]) ? i : best), 0), t = table.t[row];
    plot.line([t, t], y, "ink thin", cursor);
    heading.textContent = `t = ${t}`;
    data.names.forEach((name, i) => {
      columns.forEach((column, j) => { rows[i].cells[j].textContent = kit.number(table[name][column][row]); });
      const value = table[name][shown.value][row];
      if (marks[i]) plot.dot(t, Math.max(value, y[0]), colours[i], marks[i], value < y[0] || value > y[1] ? 0 : 4);
    });
  }
  draw();
});
