// Which noise, at which number of steps, and how far is the output from the data?
explorer("eta", (box, data) => {
  const name = (row) => (row === "hat" ? "\u03c3\u0302" : kit.number(row));
  const plot = kit.plot(box, {
    height: 260, x: [0, 2], y: [0, 6], xticks: [0, 0.5, 1, 1.5, 2], yticks: [0, 2, 4, 6],
    xlabel: "x\u2080 (the heap at \u22121 is the mirror image)", ylabel: "density",
    alt: "The density of the data near 1, shaded, and that of the output of the sampler as a line.",
  });
  plot.area(data.x, data.data, "data");
  plot.text(1.98, 5.5, "data", "data", null, "end");
  plot.text(1.98, 5, "output of the sampler", "step", null, "end");
  const output = plot.line(data.x, data.data, "step");

  // The places of the table, darker the larger the distance; the column of \u03c3\u0302 stands apart.
  const left = (column) => (data.rows[column] === "hat" ? column + 0.4 : column);
  const map = kit.plot(box, {
    height: 250, x: [0, data.rows.length + 0.4], y: [0, data.steps.length],
    xticks: data.rows.map((row, i) => [left(i) + 0.5, name(row)]),
    yticks: data.steps.map((steps, i) => [i + 0.5, String(steps)]),
    xlabel: "\u03b7, and \u03c3\u0302", ylabel: "S", margin: { left: 60, right: 14, top: 12, bottom: 44 },
    alt: "A table of fields, one for each noise and number of steps. The fields are paler, so the distances smaller, for more steps. Dots mark the smallest distance of each row.",
  });
  const sizes = data.table.flat().map((place) => Math.log(place.w1));
  const low = Math.min(...sizes), high = Math.max(...sizes);
  const best = data.steps.map((_, row) => {
    const column = data.table.map((places) => places[row].w1);
    return column.indexOf(Math.min(...column));
  });
  data.table.forEach((places, column) => places.forEach((place, row) => {
    const field = map.bar(left(column), left(column) + 1, row + 1, "step", null, row);
    field.setAttribute("fill-opacity", (0.05 + 0.85 * (Math.log(place.w1) - low) / (high - low)).toFixed(2));
  }));
  best.forEach((column, row) => map.dot(left(column) + 0.5, row + 0.5, "data", null, 4));
  const mark = map.line([0, 1], [0, 1], "ink");

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  const noise = kit.slider(controls, {
    label: ["noise ", kit.tex("\\eta"), ", or ", kit.tex("\\hat\\sigma")], values: data.rows.length, value: 0,
    show: (column) => name(data.rows[column]),
  }, draw);
  const steps = kit.slider(controls, {
    label: ["number of steps ", kit.tex("S")], values: data.steps.length, value: data.steps.indexOf(20),
    show: (row) => String(data.steps[row]),
  }, draw);
  const say = kit.readout(box, { w1: ["distance to the data, ", kit.tex("W_1")], best: ["smallest at this ", kit.tex("S")] });
  kit.caption(box, kit.make("strong", {}, "Which sampler is right? "),
    "Above: exact density of the output, near +1. Below: the distance ", kit.tex("W_1"), " to the data at every place, stronger in colour for larger; ",
    "drag to choose one. Dots: the best of each row. ", kit.tex("\\hat\\sigma"),
    ", DDPM with the larger variance ", kit.tex("\\beta"), ", is far too wide at 10 steps and the best at 1000. ",
    "(Linear schedule, kept steps from 1 to 1000.)");
  map.drag((x, y) => {
    noise.value = Math.min(Math.floor(x), data.rows.length - 1);
    steps.value = Math.min(Math.floor(y), data.steps.length - 1);
  });

  function draw() {
    const column = noise.value, row = steps.value, place = data.table[column][row], x = left(column);
    plot.line(data.x, place.density, "step", output);
    map.line([x, x + 1, x + 1, x, x], [row, row, row + 1, row + 1, row], "ink", mark);
    const winner = data.table[best[row]][row].w1, of = data.rows[best[row]];
    say({ w1: kit.number(place.w1), best: `${of === "hat" ? "" : "\u03b7 = "}${name(of)}: ${kit.number(winner)}` });
  }
  draw();
});
