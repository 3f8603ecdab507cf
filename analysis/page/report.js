"use strict";
// What the page does beyond showing: tells of what is pointed at, isolates a family, filters families, changes the layer, gives out data.
// Text goes in as textContent only. Nothing is fetched: the page's policy forbids it.
(() => {
  const families = JSON.parse(document.getElementById("families").textContent);
  const every = (selector, root = document) => [...root.querySelectorAll(selector)];
  const marks = every("[data-f]").map((mark) => ({ mark, of: mark.dataset.f.split(" ") }));
  const groups = every("[data-kind]");
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", hidden: true }));
  const words = document.getElementById("words");
  const all = document.getElementById("all");
  const chosen = document.getElementById("chosen");
  const hidden = new Set();
  let isolated = null;
  let pointed = [];

  // Which families are shown: not of a hidden kind, with all words in schedule or id; and where one is isolated, it and its control.
  function show() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Set(), near = new Set();
    for (const [id, family] of Object.entries(families)) {
      const text = `${id} ${family.schedule}`.toLowerCase();
      if (!hidden.has(family.kind) && wanted.every((word) => text.includes(word))) kept.add(id);
      if (isolated && (id === isolated || id === families[isolated].control)) near.add(id);
    }
    for (const { mark, of } of marks) {
      const isNear = of.some((id) => near.has(id));
      mark.classList.toggle("near", isNear);
      mark.classList.toggle("dim", isolated !== null && !isNear);
      mark.classList.toggle("hid", !isNear && !of.some((id) => kept.has(id)));
    }
    for (const group of groups) {
      group.classList.toggle("hid", hidden.has(group.dataset.kind));
      group.classList.toggle("dim", isolated !== null || wanted.length > 0);
    }
    const control = isolated && families[isolated].control !== isolated ? " and its control" : "";
    chosen.textContent = isolated ? `${isolated}${control}: ${families[isolated].schedule}`
      : kept.size < Object.keys(families).length ? `${kept.size} of ${Object.keys(families).length} families` : "";
    all.hidden = !chosen.textContent;
  }

  function isolate(id) {
    isolated = id && id !== isolated && families[id] ? id : null;
    show();
  }

  function clear() {
    words.value = "";
    hidden.clear();
    every("[data-hide]").forEach((button) => button.setAttribute("aria-pressed", "true"));
    isolate(null);
  }

  // The mark at a place of the screen; in a plot with points the nearest one within 22 pixels.
  const places = new WeakMap();
  function markAt(event) {
    const direct = event.target.closest?.("[data-f], [data-say]");
    const plot = event.target.closest?.("svg.snap");
    if (!plot || direct?.dataset.say) return direct;
    if (!places.has(plot)) {
      places.set(plot, every("[data-f]", plot).flatMap((mark) => [...mark.lastElementChild.getAttribute("d").matchAll(/[ML](-?[\d.]+) (-?[\d.]+)/g)]
        .map((at) => ({ mark, x: +at[1], y: +at[2] }))));
    }
    const matrix = plot.getScreenCTM();
    const x = (event.clientX - matrix.e) / matrix.a, y = (event.clientY - matrix.f) / matrix.d;
    let best = null, least = (22 / matrix.a) ** 2;
    for (const place of places.get(plot)) {
      const square = (place.x - x) ** 2 + (place.y - y) ** 2;
      if (square < least && !place.mark.classList.contains("hid") && !place.mark.classList.contains("dim")) [best, least] = [place.mark, square];
    }
    return best;
  }

  function tell(mark, event) {
    pointed.forEach((other) => other.classList.remove("pointed"));
    pointed = mark ? [mark] : [];
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add("pointed");
    const lines = mark.dataset.say ? [["", mark.dataset.say]] : mark.dataset.f.split(" ").slice(0, 3).flatMap((id) => {
      const family = families[id];
      return family ? [["", family.schedule], ["", id], ...family.facts] : [["", id]];
    });
    tip.replaceChildren(...lines.map(([name, value]) => {
      const line = document.createElement("div");
      if (name) line.append(Object.assign(document.createElement("span"), { textContent: name }));
      line.append(Object.assign(document.createElement("b"), { textContent: value }));
      return line;
    }));
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? Math.max(4, event.clientY - box.height - 12) : event.clientY + 18}px`;
  }

  // Of the panels that have a layer or a predictor of the gap, those of the one that was chosen; a figure without it keeps what it shows.
  function choose(what, value) {
    every(`[data-set="${what}"]`).forEach((button) => button.setAttribute("aria-pressed", button.value === value));
    for (const root of every(".panels, .answer")) {
      const panels = every(":scope > [data-layer], :scope > [data-by]", root);
      if (!panels.some((panel) => panel.dataset[what] === value)) continue;
      const other = what === "layer" ? "by" : "layer";
      const now = panels.find((panel) => panel.classList.contains("now") && panel.dataset[other]);
      for (const panel of panels) {
        const fits = (key, wanted) => !panel.dataset[key] || !wanted || panel.dataset[key] === wanted;
        panel.classList.toggle("now", fits(what, value) && fits(other, now?.dataset[other]));
      }
    }
  }

  function save(blob, name) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async function giveData(link) { // the link holds gzip; a browser that can unpack it gives out plain CSV
    const packed = Uint8Array.from(atob(link.href.split(",")[1]), (letter) => letter.charCodeAt(0));
    const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    save(new Blob([await new Response(plain).arrayBuffer()], { type: "text/csv" }), link.download.replace(/\.gz$/, ""));
  }

  function saveDrawing(figure) { // all that is shown of it, where it stands
    const shown = every(".key > svg, .panel > svg", figure).filter((svg) => svg.getClientRects().length);
    const boxes = shown.map((svg) => svg.getBoundingClientRect());
    const left = Math.min(...boxes.map((box) => box.left)), top = Math.min(...boxes.map((box) => box.top));
    const width = Math.max(...boxes.map((box) => box.right)) - left, height = Math.max(...boxes.map((box) => box.bottom)) - top;
    const make = (name, attributes) => {
      const element = document.createElementNS(shown[0].namespaceURI, name);
      Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
      return element;
    };
    const whole = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    const style = make("style", {});
    style.textContent = document.getElementById("chart-style").textContent;
    whole.append(style, make("rect", { class: "paper", width: "100%", height: "100%" }));
    shown.forEach((svg, i) => {
      const copy = whole.appendChild(svg.cloneNode(true));
      const at = { x: boxes[i].left - left, y: boxes[i].top - top, width: boxes[i].width, height: boxes[i].height };
      Object.entries(at).forEach(([key, value]) => copy.setAttribute(key, value));
    });
    save(new Blob([new XMLSerializer().serializeToString(whole)], { type: "image/svg+xml" }), `${figure.id}.svg`);
  }

  document.addEventListener("pointermove", (event) => event.pointerType === "mouse" && tell(markAt(event), event));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button"), link = event.target.closest("a.data");
    if (link && window.DecompressionStream) { event.preventDefault(); giveData(link); return; }
    if (button?.dataset.set) choose(button.dataset.set, button.value);
    else if (button?.dataset.hide) {
      const kind = button.dataset.hide, shownNow = hidden.delete(kind) || !hidden.add(kind);
      button.setAttribute("aria-pressed", shownNow);
      show();
    } else if (button === all) clear();
    else if (button?.classList.contains("save")) saveDrawing(button.closest("figure"));
    else if (!button && event.target.closest("svg")) {
      const mark = markAt(event);
      tell(mark, event);
      if (!mark || mark.dataset.f) isolate(mark && mark.dataset.f.split(" ")[0]);
    }
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && (tell(null), clear()));
  addEventListener("scroll", () => tell(null), { passive: true });
  addEventListener("beforeprint", () => every(".answer details").forEach((one) => { one.open = true; }));
  words?.addEventListener("input", show);
  every(".save").forEach((button) => { button.hidden = false; });
})();
