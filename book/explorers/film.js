// How does noise become a digit?
explorer("film", (box, data) => {
  const side = 8, pixels = side * side;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const reel = (name, words) => {
    const frames = bytes(data[name]);
    const screens = Array.from({ length: data.digits }, () => kit.make("canvas", { width: side, height: side }));
    const picture = kit.make("div", { class: "explorer-reel", role: "img" }, ...screens);
    film.append(kit.make("figure", {}, kit.make("figcaption", {}, ...words), picture));
    return (frame, alt) => {
      screens.forEach((screen, digit) => {
        const image = new ImageData(side, side), first = (frame * data.digits + digit) * pixels;
        for (let i = 0; i < pixels; i++) image.data.set([...Array(3).fill(frames[first + i]), 255], 4 * i);
        screen.getContext("2d").putImageData(image, 0, 0);
      });
      picture.setAttribute("aria-label", alt);
    };
  };
  const film = kit.make("div", { class: "explorer-film" });
  box.append(film);
  const sample = reel("x_t", ["the sample ", kit.tex("x_t")]);
  const guess = reel("x_0", ["the network\u2019s guess ", kit.tex("\\hat x_0")]);

  const controls = kit.make("div", { class: "explorer-controls" });
  box.append(controls);
  const time = kit.slider(controls, { label: ["step ", kit.tex("t")], values: data.t, value: 400 }, draw);
  kit.play(controls, time, { milliseconds: 180 });
  const say = kit.readout(box, {
    taken: "steps taken", level: [kit.tex("\\bar\\alpha_t"), ", the share of signal"],
  });
  kit.caption(box, kit.make("strong", {}, "How does noise become a digit? "), "Ten samples on their way, and what the network takes each for at that moment. ",
    "After a wild start the guess is an average of many digits, and it makes up its mind well before ", kit.tex("x_t"), " shows it.");

  function draw() {
    const frame = data.t.indexOf(time.value), where = `Frame ${frame + 1} of ${data.t.length}, t = ${time.value}`;
    const look = time.value > 700 ? "mostly noise" : time.value > 200 ? "digits under noise" : "handwritten digits";
    sample(frame, `${where}: ten samples, ${look}.`);
    guess(frame, `${where}: what the network expects each to become.`);
    say({ taken: frame * data.every, level: kit.number(data.alpha_bar[frame]) });
  }
  draw();
});
