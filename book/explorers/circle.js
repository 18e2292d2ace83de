// Where on the arc a² + b² = 1 does a step live, and which σ may it choose?
explorer("circle", (box, data) => {
  let schedule = "linear";
  const plot = kit.plot(box, {
    width: 460, height: 400, x: [0, 1.19], y: [0, 1.04], xticks: [0, 0.5, 1], yticks: [0, 0.5, 1],
    xlabel: "a, weight of the old noise", ylabel: "b, weight of the fresh noise",
    alt: "A quarter circle. A point on it, which can be dragged, shares the noise of a step between old and fresh.",
  });
  plot.line(data.a, data.b, "ink thin");
  const dial = plot.line(data.a, data.b, "step thick");
  plot.text(1.02, 0.03, "DDIM", "step");
  const ddpm = plot.dot(1, 0, "step hollow", null, 6);
  const ddpmName = plot.text(1, 0, "", "step");
  const large = plot.dot(1, 0, "schedule hollow", null, 6);
  const largeName = plot.text(1, 0, "", "schedule");
  const radius = plot.line([0, 1], [0, 0], "noise thin");
  const point = plot.dot(1, 0, "noise", null, 8);

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  kit.choice(controls, { label: "Schedule", options: { linear: "linear", cosine: "cosine" }, value: schedule },
    (key) => { schedule = key; draw(); });
  const time = kit.slider(controls, { label: ["step ", kit.tex("t")], values: data.t, value: 20 }, draw);
  const share = kit.slider(controls, {
    label: [kit.tex("\\sigma"), " as a share of the largest"], values: data.share, value: 0.5,
    show: (value) => `${kit.number(100 * value)} %`,
  }, draw);
  const say = kit.readout(box, {
    sigma: kit.tex("\\sigma"), a: kit.tex("a"), b: kit.tex("b"), sum: kit.tex("a^2+b^2"), eta: kit.tex("\\eta"),
  });
  kit.caption(box, kit.make("strong", {}, "Where on the arc does a sampler live? "),
    "Every point of the arc is a \u03c3 that a step may choose. Thick: \u03b7 from 0, DDIM, to 1, DDPM. Drag the point, and move ",
    kit.tex("t"), ": far from the data DDPM hardly differs from DDIM.");
  // The angle says where on the arc to look; the two weights are the library's.
  plot.drag((x, y) => { share.value = Math.min(1, y / Math.hypot(x, y) || 0); });

  const place = (value) => [kit.between(data.share, data.a, value), kit.between(data.share, data.b, value)];
  function draw() {
    const row = data.t.indexOf(time.value), table = data.schedules[schedule];
    const largest = table.largest[row], tilde = table.posterior[row], beta = table.beta[row];
    const [a, b] = place(share.value), [a1, b1] = place(tilde), end = data.share.findIndex((v) => v > tilde);
    const upTo = end < 0 ? data.share.length : end;
    plot.line([...data.a.slice(0, upTo), a1], [...data.b.slice(0, upTo), b1], "step thick", dial);
    plot.dot(a1, b1, "step hollow", ddpm, 6);
    plot.text(a1 + 0.03, b1 + 0.035, "DDPM, \u03b7 = 1", "step", ddpmName);
    const inside = beta <= 1;
    const [a2, b2] = place(Math.min(beta, 1));
    plot.dot(a2, b2, "schedule hollow", large, inside ? 6 : 0);
    plot.text(inside ? a2 - 0.03 : 0.04, inside ? b2 - 0.05 : 1.02,
      inside ? "\u03c3 = \u221a\u03b2" : "\u03c3 = \u221a\u03b2 is too large for the arc", "schedule", largeName,
      inside ? "end" : "start");
    plot.line([0, a], [0, b], "noise thin", radius);
    plot.dot(a, b, "noise", point, 8);
    say({
      sigma: kit.number(share.value * largest), a: kit.number(a), b: kit.number(b),
      sum: kit.number(a * a + b * b, 4),
      eta: kit.number(share.value / tilde),
    });
  }
  draw();
});
