// Where was x_s, when x_t is seen and x_0 is known or not?
explorer("posterior", (box, data) => {
  const rows = { x_t: -0.12, x_0: -0.3 };
  const plot = kit.plot(box, {
    height: 390, x: [-3, 3], y: [-0.4, 1.42], xticks: [-3, -2, -1, 0, 1, 2, 3],
    yticks: [[rows.x_t, kit.sub("x", "t")], [rows.x_0, kit.sub("x", "0")]], xlabel: kit.sub("x", "s"),
    alt: "Bell curves over x_s: what the known data say, what the later sample says, and between them the posterior. Two dots below, x_t and x_0, can be dragged.",
  });
  const grid = Array.from({ length: 481 }, (_, i) => -3 + i / 80), zero = grid.map(() => 0);
  const bell = ([mean, deviation], height = 1) =>
    grid.map((x) => height * kit.between(data.z, data.bell, (x - mean) / deviation));
  const answer = { area: plot.area(grid, zero, "step", null, 0), line: plot.line(grid, zero, "step") };
  const seen = plot.line([0, 0], [rows.x_t, 1], "noisy thin");
  const future = plot.line(grid, zero, "noisy dashed");
  const past = [plot.line(grid, zero, "data dashed"), plot.line(grid, zero, "data dashed")];
  const dots = { x_t: plot.dot(0, rows.x_t, "noisy", null, 8), x_0: plot.dot(0, rows.x_0, "data", null, 8) };
  const names = ["data", "noisy", "step"].map((colour) => plot.text(0, 0, "", colour));

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  const known = kit.choice(controls, {
    label: kit.tex("x_0"), options: { known: "known", unknown: "unknown" }, value: "known",
  }, draw);
  const stride = kit.choice(controls, {
    label: ["step ", kit.tex("s")], value: "100",
    options: { 1: "t \u2212 1", 20: "t \u2212 20", 100: "t \u2212 100" },
  }, draw);
  const time = kit.slider(controls, { label: ["step ", kit.tex("t")], values: data.t, value: 250 }, draw);
  const place = (name, values, value) => kit.slider(controls,
    { label: kit.tex(name), values, value, show: (x) => kit.number(x) }, draw);
  const x_t = place("x_t", data.x_t, 0.2), x_0 = place("x_0", data.x_t, 1);
  const part = () => box.appendChild(kit.make("div"));
  const both = part(), whenKnown = part(), whenUnknown = part();
  const say = kit.readout(both, { s: kit.tex("s"), mean: ["mean of ", kit.tex("x_s")] });
  const sayKnown = kit.readout(whenKnown, {
    weight_t: ["weight of ", kit.tex("x_t")], weight_0: ["weight of ", kit.tex("x_0")],
    variance: ["variance ", kit.tex("\\tilde\\beta")],
  });
  const sayUnknown = kit.readout(whenUnknown, { right: "chance of the heap at +1" });
  kit.caption(box, kit.make("strong", {}, "Does it matter whether "), kit.tex("x_0"), kit.make("strong", {}, " is known? "),
    "Known: the past and the future are two witnesses, and the posterior ", kit.tex("q(x_s\\mid x_t,x_0)"),
    " stands between them, narrower than both. Unknown: ", kit.tex("q(x_s\\mid x_t)"),
    " is made of one bell for each heap that ", kit.tex("x_0"), " may come from. Curves are scaled to their peaks, the two bells to that of their sum.");

  plot.svg.style.touchAction = "pan-y"; // up and down still scrolls the page
  let held = x_t;
  plot.drag((x, y, began) => {
    const apart = (slider, row) => Math.abs(x - slider.value) + 2 * Math.abs(y - row);
    if (began) held = known.value === "unknown" || apart(x_t, rows.x_t) <= apart(x_0, rows.x_0) ? x_t : x_0;
    held.value = x;
  });

  function draw() {
    const row = data.t.indexOf(time.value), law = data.strides[stride.value];
    const told = known.value === "known", right = data.right[row][data.x_t.indexOf(x_t.value)];
    const [toMean, pastDeviation] = law.past.map((v) => v[row]), [fromX, futureDeviation] = law.future.map((v) => v[row]);
    const mean = ([onX, onData], from) => onX[row] * x_t.value + onData[row] * from;
    const heap = (at) => mean(law.heap_mean, at), deviation = law.heap_deviation[row];
    const posterior = mean(law.mean, x_0.value);
    const halves = [bell([heap(-1), deviation], 1 - right), bell([heap(1), deviation], right)];
    const sum = halves[0].map((v, i) => v + halves[1][i]), peak = Math.max(...sum);
    const scaled = (ys) => ys.map((v) => v / peak);
    const ys = told ? bell([posterior, law.deviation[row]]) : scaled(sum);
    plot.area(grid, ys, "step", answer.area, 0);
    plot.line(grid, ys, "step", answer.line);
    plot.line(grid, bell([fromX * x_t.value, futureDeviation]), "noisy dashed", future);
    plot.line(grid, told ? bell([toMean * x_0.value, pastDeviation]) : scaled(halves[0]), "data dashed", past[0]);
    plot.line(grid, told ? zero : scaled(halves[1]), told ? "data thin" : "data dashed", past[1]);
    plot.line([x_t.value, x_t.value], [rows.x_t, 1], "noisy thin", seen);
    plot.dot(x_t.value, rows.x_t, "noisy", dots.x_t, 8);
    plot.dot(x_0.value, rows.x_0, "data", dots.x_0, told ? 8 : 0);
    x_0.input.parentElement.hidden = !told;
    const name = (i, words, colour) => plot.text(2.95, 1.35 - 0.12 * i, words, colour, names[i], "end");
    name(0, told ? ["the past: what ", kit.sub("x", "0"), " says"] : "one bell for each heap", "data");
    name(1, ["the future: what ", kit.sub("x", "t"), " says"], "noisy");
    name(2, told ? "both together" : "the sum of the two bells", "step");
    whenKnown.hidden = !told;
    whenUnknown.hidden = told;
    say({
      s: time.value - Number(stride.value),
      mean: kit.number(told ? posterior : (1 - right) * heap(-1) + right * heap(1)),
    });
    sayKnown({
      weight_t: kit.number(law.mean[0][row]), weight_0: kit.number(law.mean[1][row]), variance: kit.number(law.variance[row]),
    });
    sayUnknown({ right: kit.number(right) });
  }
  draw();
});
