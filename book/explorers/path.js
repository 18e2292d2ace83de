// Where does a code lead, and is it found again from there?
explorer("path", (box, data) => {
  let steps = "20";
  const plot = kit.plot(box, {
    height: 360, x: [1130, -130], y: [-3, 3], xticks: [1000, 800, 600, 400, 200, 0], yticks: [-3, -2, -1, 0, 1, 2, 3],
    xlabel: "t", ylabel: "x\u209c",
    alt: "Paths of DDIM from the noise on the left into the two heaps of the data on the right; they never cross. One, which can be dragged, is drawn thick. Dashed: the way back from its end.",
  });
  // The two laws stand upright, outwards of the ends of the paths.
  plot.line(data.noise.map((p) => 1000 + 270 * p), data.x, "noise");
  plot.line(data.data.map((p) => -42 * p), data.x, "data");
  const fans = data.codes.map((_, i) => i).filter((i) => i % 5 === 0)
    .map((i) => [i, plot.line([1000, 0], [0, 0], "data thin faint")]);
  const down = plot.line([1000, 0], [0, 0], "noisy"), up = plot.line([1000, 0], [0, 0], "ink dashed");
  const found = plot.dot(1000, 0, "ink hollow", null, 6);
  const end = plot.dot(0, 0, "data", null, 6), code = plot.dot(1000, 0, "noise", null, 8);

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  kit.choice(controls, { label: "number of steps", options: { 5: "5", 20: "20", 100: "100" }, value: steps },
    (key) => { steps = key; draw(); });
  const start = kit.slider(controls, {
    label: ["code ", kit.tex("x_T")], values: data.codes, value: 1.2, show: (value) => kit.number(value),
  }, draw);
  const say = kit.readout(box, {
    x_T: ["code ", kit.tex("x_T")], x_0: ["decoded, ", kit.tex("x_0")], back: ["code of that ", kit.tex("x_0")],
    again: "decoded again", miss: "missed by",
  });
  kit.caption(box, kit.make("strong", {}, "Can two codes meet? "),
    "Drag the code on the left: DDIM leads it to the data on the right. The order of the paths never changes, so no two codes name the same point. ",
    "Dashed: ", kit.make("code", {}, "samplers.encode"), " from where it arrived, back to a code. With 5 steps it misses; with 100 it hardly does.");
  plot.drag((_, x) => { start.value = x; });

  function draw() {
    const run = data.runs[steps], row = data.codes.indexOf(start.value), last = run.t.length - 1;
    const kind = (i) => `${run.down[i][last] > 0 ? "data" : "noise"} thin faint`;
    for (const [i, line] of fans) plot.line(run.t, run.down[i], kind(i), line);
    const [there, back] = [run.down[row], run.up[row]];
    plot.line(run.t, there, "noisy", down);
    plot.line(run.t, back, "ink dashed", up);
    plot.dot(1000, there[0], "noise", code, 8);
    plot.dot(1000, back[0], "ink hollow", found, 6);
    plot.dot(0, there[last], "data", end, 6);
    say({
      x_T: kit.number(there[0]), x_0: kit.number(there[last]), back: kit.number(back[0]),
      again: kit.number(run.again[row]), miss: kit.number(run.miss[row], 2),
    });
  }
  draw();
});
