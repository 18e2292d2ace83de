// What lies between four digits: between their codes, and between their pixels?
explorer("codes", (box, data) => {
  let kind = "codes";
  const side = data.side, wide = 8, big = side;
  const plot = kit.plot(box, {
    width: 646, height: 318, x: [0, side + 0.6 + big], y: [side, 0], margin: { left: 2, right: 2, top: 2, bottom: 8 },
    alt: "A square of small pictures with four digits at its corners, and the chosen one of them large beside it.",
  });
  plot.svg.querySelector(".explorer-axes").remove();

  /** One picture of 8 by 8 grey values on a canvas, smoothed for the eye. */
  function paint(canvas, left, top, size, grey) {
    const small = kit.make("canvas", { width: wide, height: wide });
    const image = new ImageData(wide, wide);
    grey.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    small.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, left, top, size, size);
  }
  function image(canvas, left, size, old) {
    const element = old || kit.make("svg:image", { preserveAspectRatio: "none" });
    element.setAttribute("href", canvas.toDataURL());
    element.setAttribute("x", plot.across.to(left));
    element.setAttribute("y", plot.down.to(0));
    element.setAttribute("width", plot.across.to(left + size) - plot.across.to(left));
    element.setAttribute("height", plot.down.to(size) - plot.down.to(0));
    if (!old) plot.inside.append(element);
    return element;
  }
  const grey = {}, sheets = {};
  for (const name of ["codes", "pixels"]) {
    const bytes = Uint8Array.from(atob(data[name].pixels), (letter) => letter.charCodeAt(0));
    grey[name] = (place) => bytes.slice(64 * place, 64 * (place + 1));
    sheets[name] = kit.make("canvas", { width: 60 * side, height: 60 * side });
    for (let i = 0; i < side * side; i++)
      paint(sheets[name], 60 * (i % side) + 1, 60 * Math.floor(i / side) + 1, 58, grey[name](i));
  }
  const large = kit.make("canvas", { width: 256, height: 256 });
  let sheet = null, chosen = null, mark = null;

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  kit.choice(controls, { label: "between their", options: { codes: "codes", pixels: "pixels" }, value: kind },
    (key) => { kind = key; draw(); });
  const show = (i) => `${i} of ${side - 1}`;
  const across = kit.slider(controls, { label: "across", values: side, value: 3, show }, draw);
  const down = kit.slider(controls, { label: "down", values: side, value: 3, show }, draw);
  const say = kit.readout(box, { nearest: "most like", distance: "its distance to the nearest digit of the data" });
  kit.caption(box, kit.make("strong", {}, "Is there a digit between two digits? "),
    "Four digits are encoded; the square is decoded from the arcs between their codes. Drag through it. ",
    "Between codes every picture has full contrast, and other digits come by. Between pixels there are faint digits on top of each other.");
  plot.drag((x, y) => {
    across.value = Math.min(Math.floor(x), side - 1);
    down.value = Math.min(Math.floor(y), side - 1);
  });

  function draw() {
    const [i, j] = [across.value, down.value], place = j * side + i;
    sheet = image(sheets[kind], 0, side, sheet);
    paint(large, 0, 0, 256, grey[kind](place));
    chosen = image(large, side + 0.6, big, chosen);
    mark = plot.line([i, i + 1, i + 1, i, i], [j, j, j + 1, j + 1, j], "data", mark);
    say({ nearest: `a ${data[kind].nearest[place]}`, distance: kit.number(data[kind].distance[place]) });
  }
  draw();
});
