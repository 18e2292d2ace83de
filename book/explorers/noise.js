// What is left of two heaps at step t?
explorer("noise", (box, data) => {
  const plot = kit.plot(box, {
    height: 340, x: [-3, 3], y: [-0.42, 1.06], xticks: [-3, -2, -1, 0, 1, 2, 3],
    ylabel: "density, scaled to its peak",
    alt: "The density of the noised data: two narrow heaps that widen and merge into one bell as t grows. Below it dots, one for each of 120 draws.",
  });
  const left = (row) => [...data.right[row]].reverse();
  const share = (heap) => heap.map((v) => v / 1000);
  const both = (row) => share(left(row).map((v, i) => v + data.right[row][i]));
  const zero = data.x.map(() => 0);
  const density = { area: plot.area(data.x, zero, "noisy", null, 0), line: plot.line(data.x, zero, "noisy") };
  const heaps = [plot.line(data.x, zero, "data thin"), plot.line(data.x, zero, "data thin")];
  const noise = plot.line(data.x, zero, "noise dashed");
  // Filled dots come from the left heap, rings from the right one.
  const kind = (x_0) => (x_0 < 0 ? "noisy" : "noisy hollow");
  const dots = data.x_0.map((x_0) => plot.dot(x_0, 0, kind(x_0), null, 3.5));
  [["the mixture", "noisy"], ["its two heaps", "data"], ["pure noise", "noise"]].forEach(
    ([words, colour], i) => plot.text(2.95, 0.98 - 0.095 * i, words, colour, null, "end"));

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  const time = kit.slider(controls, { label: ["step ", kit.tex("t")], values: data.t, value: 100 }, draw);
  kit.play(controls, time, { milliseconds: 80 });
  const say = kit.readout(box, {
    level: kit.tex("\\bar\\alpha_t"), snr: "SNR", kl: ["left to lose: ", kit.tex("D_{\\mathrm{KL}}(q(x_t)\\,\\|\\,\\mathcal N(0,1))")],
  });
  kit.caption(box, kit.make("strong", {}, "Where does the information go? "),
    "The exact density of ", kit.tex("x_t"), ", a mixture of two heaps, turns into that of pure noise. The dots are draws, each with its own noise: ",
    "filled ones began in the left heap, rings in the right one. Soon a dot\u2019s place no longer tells its start.");

  function draw() {
    const row = data.t.indexOf(time.value), [a, b] = data.weights.map((weight) => weight[row]), ys = both(row);
    plot.area(data.x, ys, "noisy", density.area, 0);
    plot.line(data.x, ys, "noisy", density.line);
    [left(row), data.right[row]].forEach((heap, i) => plot.line(data.x, share(heap), "data thin", heaps[i]));
    plot.line(data.x, data.noise.map((p) => p / data.peak[row]), "noise dashed", noise);
    dots.forEach((dot, i) => {
      const x = a * data.x_0[i] + b * data.eps[i];
      plot.dot(x, -0.06 - 0.33 * data.height[i], kind(data.x_0[i]), dot, 3.5);
    });
    const kl = data.kl[row];
    say({
      level: kit.number(data.alpha_bar[row]), snr: data.snr[row] === null ? "\u221e" : kit.number(data.snr[row]),
      kl: kl < 1e-9 ? "below 10\u207b\u2079 nats" : `${kit.number(kl)} nats`,
    });
  }
  draw();
});
