// What the interactive figures are made of: a plot, sliders, choices, a play button, a readout.
// Plain SVG and form elements, so that keyboard, touch and screen readers work as they do elsewhere.
// A figure says what it shows in `explorer(name, (box, data) => {...})`; the page holds the data,
// which the library computed. Without JavaScript, and on paper, the still picture is shown instead.
"use strict";

const kit = {
  /** An element with attributes and children; `svg:` before its tag puts it into SVG's namespace. */
  make(tag, attributes = {}, ...children) {
    const svg = tag.startsWith("svg:");
    const element = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  },

  /** A number in as many significant digits, never in exponential notation between 1e-4 and 1e6. */
  number(value, digits = 3) {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 1).replaceAll("-", "\u2212");
    return String(Number(value.toPrecision(digits))).replace("-", "\u2212");
  },

  /** TeX that MathJax sets with the rest of the page. */
  tex(source) {
    return kit.make("span", { class: "math notranslate nohighlight" }, `\\(${source}\\)`);
  },

  /** A letter with an index, for labels in a plot. */
  sub(letter, index) {
    return kit.make("svg:tspan", {}, letter,
      kit.make("svg:tspan", { dy: 4, "font-size": "0.75em" }, index), kit.make("svg:tspan", { dy: -4 }, "\u200b"));
  },

  /** A raised number, as in a power of ten. */
  sup(words) {
    return kit.make("svg:tspan", { dy: -5, "font-size": "0.75em" }, words);
  },

  /** What an element says, for those who hear it: its words, and its TeX without the marks. */
  plain(element) {
    return element.textContent.replace(/\\[()]/g, "").replace(/\\([a-z]+)/gi, " $1 ").replace(/[{}_^]/g, " ")
      .replace(/\s+/g, " ").trim();
  },

  /** A labelled slider. `values` is how many positions it has, or a list of what they stand for. */
  slider(box, { label, values, value, show = String }, changed) {
    const list = Array.isArray(values) ? values : Array.from({ length: values }, (_, i) => i);
    const input = kit.make("input", {
      type: "range", min: 0, max: list.length - 1, step: 1, value: list.indexOf(value),
    });
    const shown = kit.make("output", { "aria-live": "off" }); // the slider itself says its value
    const said = kit.make("span", { class: "explorer-label" });
    said.append(...[label].flat());
    input.setAttribute("aria-label", kit.plain(said));
    box.append(kit.make("label", { class: "explorer-slider" }, said, input, shown));
    const slider = {
      input,
      get value() { return list[input.valueAsNumber]; },
      set value(wanted) {
        let best = 0;
        list.forEach((one, i) => {
          if (Math.abs(one - wanted) < Math.abs(list[best] - wanted)) best = i;
        });
        input.value = best;
        update();
      },
    };
    function update() {
      shown.textContent = show(slider.value);
      input.setAttribute("aria-valuetext", shown.textContent);
      changed(slider.value);
    }
    input.addEventListener("input", update);
    shown.textContent = show(slider.value);
    input.setAttribute("aria-valuetext", shown.textContent);
    return slider;
  },

  /** One of several: radio buttons that look like one switch. `options` maps values to labels. */
  choice(box, { label, options, value }, changed) {
    const group = `explorer-${(kit.groups = (kit.groups || 0) + 1)}`;
    const set = kit.make("fieldset", { class: "explorer-choice" }, kit.make("legend", {}, ...[label].flat()));
    for (const [key, text] of Object.entries(options)) {
      const input = kit.make("input", { type: "radio", name: group, value: key });
      const words = kit.make("span", {}, text);
      input.setAttribute("aria-label", kit.plain(words));
      input.checked = key === value;
      input.addEventListener("change", () => changed(key));
      set.append(kit.make("label", {}, input, words));
    }
    box.append(set);
    return { get value() { return set.querySelector("input:checked").value; } };
  },

  /** A button that moves a slider from where it is to an end and back to the other, until pressed again. */
  play(box, slider, { label = "Play", milliseconds = 60, forward = 1 } = {}) {
    const button = kit.make("button", { type: "button", class: "explorer-play" }, label);
    let timer = null;
    const hush = (quiet) => { // what changes all the time is not read out
      const readout = box.parentElement.querySelector("[aria-live]:not(output)");
      if (readout) readout.setAttribute("aria-live", quiet ? "off" : "polite");
    };
    function stop() {
      clearInterval(timer);
      timer = null;
      hush(false);
      button.textContent = label;
    }
    function step() {
      const next = slider.input.valueAsNumber + forward;
      if (next < 0 || next > Number(slider.input.max)) return stop();
      slider.input.value = next;
      slider.input.dispatchEvent(new Event("input"));
    }
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      const last = forward > 0 ? Number(slider.input.max) : 0;
      if (slider.input.valueAsNumber === last) {
        slider.input.value = forward > 0 ? 0 : Number(slider.input.max);
        slider.input.dispatchEvent(new Event("input"));
      }
      hush(true);
      button.textContent = "Stop";
      timer = setInterval(step, milliseconds);
    });
    slider.input.addEventListener("pointerdown", stop);
    slider.input.addEventListener("keydown", stop);
    box.append(button);
    return button;
  },

  /** Numbers in words: a list of terms and values, read out when it changes. */
  readout(box, names) {
    const list = kit.make("dl", { class: "explorer-readout", "aria-live": "polite" });
    const values = {};
    for (const [key, name] of Object.entries(names)) {
      values[key] = kit.make("dd");
      list.append(kit.make("div", {}, kit.make("dt", {}, ...[name].flat()), values[key]));
    }
    box.append(list);
    return (numbers) => {
      for (const [key, text] of Object.entries(numbers)) values[key].textContent = text;
    };
  },

  /**
   * A plot in SVG. x and y are ranges; `log: "x"`, `"y"` or `"xy"` makes an axis logarithmic. Ticks
   * are lists of numbers, or of pairs of a number and its label. Draw with the returned functions:
   * each takes a class, which the style sheet colours (data, noisy, noise, schedule, network, step,
   * ink), and returns its element; give an element back as `old` to redraw it.
   */
  plot(box, {
    width = 640, height = 300, x, y, log = "", xlabel = "", ylabel = "", xticks = [], yticks = [],
    alt, margin = { left: 52, right: 14, top: 12, bottom: 44 },
  }) {
    // On a phone the plot shrinks and its letters do not.
    const room = box.clientWidth || width;
    if (room < width) {
      const across = margin.left + margin.right, down = margin.top + margin.bottom;
      height = down + (height - down) * Math.max((room - across) / (width - across), 0.75);
      width = room;
    }
    const svg = kit.make("svg:svg", {
      viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt, class: "explorer-plot",
    });
    svg.style.maxWidth = `${width}px`;
    box.append(svg);
    const scale = (range, low, high, logarithmic) => {
      const f = logarithmic ? Math.log : (v) => v;
      const [a, b] = range.map(f);
      const to = (value) => low + ((f(value) - a) / (b - a)) * (high - low);
      const back = (pixel) => {
        const value = a + ((pixel - low) / (high - low)) * (b - a);
        return logarithmic ? Math.exp(value) : value;
      };
      return { to, back };
    };
    const right = width - margin.right, bottom = height - margin.bottom;
    const across = scale(x, margin.left, right, log.includes("x"));
    const down = scale(y, bottom, margin.top, log.includes("y"));
    const axes = kit.make("svg:g", { class: "explorer-axes" });
    const inside = kit.make("svg:g");
    svg.append(axes, inside);
    axes.append(kit.make("svg:path", { d: `M${margin.left} ${margin.top}V${bottom}H${right}` }));
    for (const tick of xticks) {
      const [at, text] = Array.isArray(tick) ? tick : [tick, kit.number(tick)];
      axes.append(
        kit.make("svg:path", { d: `M${across.to(at)} ${bottom}v5` }),
        kit.make("svg:text", { x: across.to(at), y: bottom + 18, "text-anchor": "middle" }, text),
      );
    }
    for (const tick of yticks) {
      const [at, text] = Array.isArray(tick) ? tick : [tick, kit.number(tick)];
      axes.append(
        kit.make("svg:path", { d: `M${margin.left} ${down.to(at)}h-5` }),
        kit.make("svg:text", { x: margin.left - 8, y: down.to(at) + 4, "text-anchor": "end" }, ...[text].flat()),
      );
    }
    axes.append(
      kit.make("svg:text", {
        x: (margin.left + right) / 2, y: height - 6, "text-anchor": "middle", class: "explorer-name",
      }, xlabel),
      kit.make("svg:text", {
        x: 14, y: (margin.top + bottom) / 2, "text-anchor": "middle", class: "explorer-name",
        transform: `rotate(-90 14 ${(margin.top + bottom) / 2})`,
      }, ylabel),
    );
    const put = (old, tag, attributes) => {
      const element = old || kit.make(`svg:${tag}`);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (!old) inside.append(element);
      return element;
    };
    const along = (xs, ys) =>
      xs.map((v, i) => `${across.to(v).toFixed(1)} ${down.to(ys[i]).toFixed(1)}`).join("L");
    return {
      svg, inside, across, down,
      line: (xs, ys, kind, old) => put(old, "path", { d: `M${along(xs, ys)}`, class: `line ${kind}` }),
      area: (xs, ys, kind, old, base = y[0]) =>
        put(old, "path", {
          d: `M${along([xs[0], ...xs, xs[xs.length - 1]], [base, ...ys, base])}Z`, class: `area ${kind}`,
        }),
      dot: (at, value, kind, old, radius = 5) =>
        put(old, "circle", {
          cx: across.to(at).toFixed(1), cy: down.to(value).toFixed(1), r: radius, class: `dot ${kind}`,
        }),
      bar: (from, to, value, kind, old, base = y[0]) =>
        put(old, "rect", {
          x: across.to(from), width: Math.max(across.to(to) - across.to(from), 0),
          y: Math.min(down.to(value), down.to(base)), height: Math.abs(down.to(base) - down.to(value)),
          class: `bar ${kind}`,
        }),
      text: (at, value, words, kind, old, anchor = "start") => {
        const element = put(old, "text", {
          x: across.to(at), y: down.to(value), class: `note ${kind}`, "text-anchor": anchor,
        });
        element.replaceChildren(...[words].flat());
        return element;
      },
      /** Call `moved(x, y, began)` while a finger or the mouse is down on the plot. */
      drag(moved) {
        svg.classList.add("explorer-drag");
        const tell = (event, began) => {
          const point = new DOMPoint(event.clientX, event.clientY);
          const here = point.matrixTransform(svg.getScreenCTM().inverse());
          const within = (v, [a, b]) => Math.min(Math.max(v, Math.min(a, b)), Math.max(a, b));
          moved(within(across.back(here.x), x), within(down.back(here.y), y), began);
        };
        svg.addEventListener("pointerdown", (event) => {
          svg.setPointerCapture(event.pointerId);
          tell(event, true);
          event.preventDefault();
        });
        svg.addEventListener("pointermove", (event) => {
          if (svg.hasPointerCapture(event.pointerId)) tell(event, false);
        });
      },
    };
  },

  /** What to try and to see, on a screen in place of the still picture's caption. */
  caption(box, ...words) {
    box.append(kit.make("p", { class: "explorer-caption" }, ...words));
    box.parentElement.querySelector(":scope > p").classList.add("explorer-still");
  },

  /** What a table of numbers at known places says between them. */
  between(xs, ys, x) {
    if (x <= xs[0]) return ys[0];
    for (let i = 1; i < xs.length; i++) {
      if (x <= xs[i]) {
        const share = (x - xs[i - 1]) / (xs[i] - xs[i - 1]);
        return ys[i - 1] + share * (ys[i] - ys[i - 1]);
      }
    }
    return ys[ys.length - 1];
  },
};

/** Put a figure where the still picture of its cell is, which stays there for print. */
function explorer(name, draw) {
  const cell = document.querySelector(`.tag_explorer-${name}`);
  const image = cell.querySelector(".cell_output img");
  const picture = image.closest("a") || image;
  const box = kit.make("div", { class: "explorer", id: `explorer-${name}` });
  const data = JSON.parse(document.getElementById(`explorer-data-${name}`).textContent);
  picture.before(box); // the picture stays next to its caption
  draw(box, data);
  picture.classList.add("explorer-still");
}
