"use strict";
// What the page does beyond showing: tells of what is pointed at, by mouse or keys, isolates families, filters them, changes the layer, and
// gives out data and drawings.
// Text goes in as textContent only. Nothing is fetched: the page's policy forbids it.
(() => {
  const families = JSON.parse(document.getElementById("families").textContent);
  const every = (selector, root = document) => [...root.querySelectorAll(selector)];
  const marks = every("[data-f]").map((mark) => ({ mark, of: mark.dataset.f.split(" ") }));
  const groups = every("[data-kind]");
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", hidden: true, role: "status" }));
  const words = document.getElementById("words");
  const all = document.getElementById("all");
  const chosen = document.getElementById("chosen");
  const hidden = new Set();
  const picked = {}; // the layer and the predictor of the gap that were chosen
  let isolated = []; // families
  let pointed = null; // the mark that is told of

  // Which families are shown: not of a hidden kind, with all words in schedule or id; and where some are isolated, they and their controls.
  function show() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Set(), near = new Set(isolated.flatMap((id) => [id, families[id].control]));
    for (const [id, family] of Object.entries(families)) {
      const text = `${id} ${family.schedule}`.toLowerCase();
      if (!hidden.has(family.kind) && wanted.every((word) => text.includes(word))) kept.add(id);
    }
    for (const { mark, of } of marks) {
      const isNear = of.some((id) => near.has(id));
      mark.classList.toggle("near", isNear);
      mark.classList.toggle("dim", near.size > 0 && !isNear);
      mark.classList.toggle("hid", !isNear && !of.some((id) => kept.has(id)));
    }
    for (const group of groups) {
      group.classList.toggle("hid", hidden.has(group.dataset.kind));
      group.classList.toggle("dim", near.size > 0 || wanted.length > 0);
    }
    chosen.textContent = near.size ? told(near)
      : kept.size < Object.keys(families).length ? `${kept.size} of ${Object.keys(families).length} families` : "";
    all.hidden = !chosen.textContent;
  }

  function told(near) {
    const [id] = isolated, one = isolated.length === 1;
    const control = near.size > isolated.length ? (one ? " and its control" : " and their controls") : "";
    return `${one ? id : `${isolated.length} families`}${control}: ${families[id].schedule}${one ? "" : ", ..."}`;
  }

  // A second time the same ones, or none: all are shown again.
  function isolate(ids) {
    const known = ids.filter((id) => families[id]);
    isolated = known.join() === isolated.join() ? [] : known;
    show();
  }

  function clear() {
    words.value = "";
    hidden.clear();
    every("[data-hide]").forEach((button) => button.setAttribute("aria-pressed", "true"));
    isolate([]);
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
    pointed?.classList.remove("pointed");
    pointed = mark;
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add("pointed");
    const ids = mark.dataset.f?.split(" ") ?? [];
    const lines = mark.dataset.say ? [["", mark.dataset.say]] : ids.slice(0, 3).flatMap((id) => {
      const family = families[id];
      return family ? [["", family.schedule], ["", id], ...family.facts] : [["", id]];
    });
    if (ids.length > 3) lines.push(["", `and ${ids.length - 3} more`]);
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

  // Of panels of several layers, or predictors of the gap, those of the ones chosen. A figure that lacks a choice keeps what it shows.
  function choose(what, value) {
    picked[what] = value;
    for (const root of every(".choices, .layers")) {
      const buttons = every(`[data-set="${what}"]`, root);
      if (buttons.some((button) => button.value === value)) {
        buttons.forEach((button) => button.setAttribute("aria-pressed", button.value === value));
      }
    }
    for (const root of every(".panels, .answer")) {
      let shown = every(":scope > [data-layer], :scope > [data-by]", root);
      const before = shown.filter((panel) => panel.classList.contains("now"));
      for (const key of ["layer", "by"]) {
        const there = shown.map((panel) => panel.dataset[key]).filter(Boolean);
        const wanted = [picked[key], ...before.map((panel) => panel.dataset[key]), there[0]].find((name) => there.includes(name));
        shown = shown.filter((panel) => !panel.dataset[key] || panel.dataset[key] === wanted);
      }
      every(":scope > [data-layer], :scope > [data-by]", root).forEach((panel) => panel.classList.toggle("now", shown.includes(panel)));
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
    const panels = every(".panel", figure).filter((panel) => panel.offsetParent), layer = panels.length === 1 && panels[0].dataset.layer;
    const name = layer ? `${figure.id}_${layer.replace(/[^\w.-]/g, "_")}` : figure.id;
    save(new Blob([new XMLSerializer().serializeToString(whole)], { type: "image/svg+xml" }), `${name}.svg`);
  }

  // A plot is one stop of the Tab key. In it the arrows go from mark to mark, from left to right, and Enter isolates.
  const plots = every("svg.plot").filter((plot) => plot.querySelector("[data-f], [data-say]"));
  for (const plot of plots) {
    plot.tabIndex = 0;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-description", "arrow keys: from mark to mark; Enter: isolate; Escape: all again");
    plot.addEventListener("keydown", (event) => goTo(plot, event));
    plot.addEventListener("blur", () => tell(null));
  }

  function goTo(plot, event) {
    if (["Enter", " "].includes(event.key) && pointed?.dataset.f) isolate(pointed.dataset.f.split(" "));
    else {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
      if (!step) return;
      const stops = every("[data-f], [data-say]", plot).map((mark) => ({ mark, box: (mark.lastElementChild ?? mark).getBoundingClientRect() }))
        .filter(({ mark }) => !mark.classList.contains("hid") && !mark.classList.contains("dim"));
      if (plot.classList.contains("snap")) stops.sort((one, other) => one.box.x + one.box.width / 2 - other.box.x - other.box.width / 2);
      const now = stops.findIndex(({ mark }) => mark === pointed);
      const next = stops[now < 0 ? 0 : Math.max(0, Math.min(stops.length - 1, now + step))];
      if (next) tell(next.mark, { clientX: next.box.x + next.box.width / 2, clientY: next.box.y + next.box.height / 2 });
    }
    event.preventDefault();
  }

  document.addEventListener("pointermove", (event) => event.pointerType !== "touch" && tell(markAt(event), event));
  document.documentElement.addEventListener("pointerleave", () => tell(null));
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
    else if (event.target.closest("svg.plot") && getSelection().isCollapsed) { // not where words of it were selected
      const mark = markAt(event);
      tell(mark, event);
      if (!mark || mark.dataset.f) isolate(mark?.dataset.f.split(" ") ?? []);
    }
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && !event.isComposing && (tell(null), clear()));
  addEventListener("scroll", () => tell(null), { passive: true, capture: true });
  const unfolded = [];
  addEventListener("beforeprint", () => unfolded.push(...every(".answer details:not([open])")) && unfolded.forEach((one) => { one.open = true; }));
  addEventListener("afterprint", () => unfolded.splice(0).forEach((one) => { one.open = false; }));
  words.addEventListener("input", show);
  every(".save").forEach((button) => { button.hidden = false; });
})();
