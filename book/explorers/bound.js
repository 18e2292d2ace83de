// Where are the nats of the bound, and how many are there too many?
explorer("bound", (box, data) => {
  let variance = "posterior", steps = data.steps.length - 1;
  const ticks = [1, 3, 10, 30, 100, 300, 1000];
  const shape = { x: [1, 1000], log: "x", xticks: ticks, margin: { left: 60, right: 14, top: 12, bottom: 26 } };
  const tiny = (power) => [10 ** power, `10${"\u207b\u2076\u207b\u2074\u207b\u00b2".slice(power + 6, power + 8) || "\u2070"}`];
  const terms = kit.plot(box, {
    ...shape, height: 230, log: "xy", y: [3e-7, 1.5], yticks: [-6, -4, -2, 0].map(tiny), ylabel: "a term, nats",
    alt: "The terms of the bound over t on logarithmic axes: largest near the data, with a shoulder where the heap is decided.",
  });
  const sums = kit.plot(box, {
    ...shape, height: 230, y: [-0.6, 3.6], yticks: [0, 1, 2, 3], xlabel: "t", ylabel: "sum from the noise, nats",
    margin: { ...shape.margin, bottom: 44 },
    alt: "The sum of the terms from the noise down to t. It rises towards the data and drops at the last term.",
  });
  const across = [1, 1000];
  sums.line(across, [data.entropy, data.entropy], "data dashed");
  sums.text(1000, data.entropy, "entropy of the data", "data", null, "end").setAttribute("dy", 15); // below its line
  const other = terms.line(across, [1, 1], "network thin dashed"), term = terms.line(across, [1, 1], "network");
  const sum = sums.line(across, [0, 0], "network");
  const cursors = [terms.line(across, [1, 1], "ink thin"), sums.line(across, [0, 0], "ink thin")];
  const dots = [terms.dot(1, 1, "network"), sums.dot(1, 0, "network")];

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  kit.choice(controls, {
    label: "variance of a step", options: { posterior: "\u03b2\u0303, the posterior\u2019s", beta: "\u03b2" }, value: variance,
  }, (key) => { variance = key; draw(); });
  kit.choice(controls, {
    label: "number of steps", options: Object.fromEntries(data.steps.map((count) => [count, count])),
    value: String(data.steps[steps]),
  }, (key) => { steps = data.steps.indexOf(Number(key)); time.value = time.value; });
  // The slider goes through the steps of the longest schedule; of a shorter one the nearest is meant.
  const finest = data.curves.posterior[steps].t;
  const entry = (t) => {
    const kept = data.curves[variance][steps].t, off = kept.map((one) => Math.abs(Math.log(one / t)));
    return off.indexOf(Math.min(...off));
  };
  const time = kit.slider(controls, {
    label: ["step ", kit.tex("t")], values: finest, value: finest.find((t) => t >= 100),
    show: (t) => String(data.curves[variance][steps].t[entry(t)]),
  }, draw);
  const say = kit.readout(box, {
    term: ["this term, ", kit.tex("L_{t-1}")], down: "sum from the noise to here", total: ["all of it, ", kit.tex("-\\mathrm{ELBO}")],
    likelihood: kit.tex("-\\log p_\\theta(x_0)"), gap: "the gap",
  });
  kit.caption(box, kit.make("strong", {}, "Where are the nats? "),
    "Exact means over the data of the mixture\u2019s terms (above; dashed: the other variance) and of their sum, added up from the noise to the data (below). ",
    "The last term, the decoder\u2019s, is a density and takes the sum down again. The gap is what ",
    kit.tex("-\\mathrm{ELBO}"), " lies above the mean of ", kit.tex("-\\log p_\\theta(x_0)"),
    ". With ", kit.tex("\\tilde\\beta"), " more steps do not close it; with ", kit.tex("\\beta"), " they do.");
  for (const plot of [terms, sums]) {
    plot.drag((t) => { time.value = t; });
    plot.svg.style.touchAction = "pan-y"; // a finger that moves up or down scrolls the page
  }

  function draw() {
    const curve = data.curves[variance][steps], here = entry(time.value), t = curve.t[here];
    const beside = data.curves[variance === "beta" ? "posterior" : "beta"][steps];
    // The decoder's term, the first, may be negative: it has no place on a logarithmic axis.
    terms.line(curve.t.slice(1), curve.term.slice(1), "network", term);
    terms.line(beside.t.slice(1), beside.term.slice(1), "network thin dashed", other);
    sums.line(curve.t, curve.down, "network", sum);
    terms.line([t, t], [3e-7, 1.5], "ink thin", cursors[0]);
    sums.line([t, t], [-0.6, 3.6], "ink thin", cursors[1]);
    terms.dot(t, here ? curve.term[here] : 1, "network", dots[0], here ? 5 : 0);
    sums.dot(t, curve.down[here], "network", dots[1]);
    say({
      term: kit.number(curve.term[here]), down: kit.number(curve.down[here]), total: kit.number(curve.total, 4),
      likelihood: kit.number(curve.likelihood, 4), gap: `${kit.number(curve.gap)} nats`,
    });
  }
  draw();
});
