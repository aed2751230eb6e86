"use strict";
(() => {
  const make = (name, attributes, text) => {
    const e = document.createElement(name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    if (text) e.textContent = text;
    return e;
  };

  // View is which share of a picture's width is seen.
  class View {
    constructor(root, smallest, changed) {
      Object.assign(this, { root, smallest, changed, from: 0, size: 1 });
      this.layers = root.querySelectorAll(".zoom");
    }
    show(from, size) {
      this.size = Math.min(Math.max(size, this.smallest), 1);
      this.from = Math.min(Math.max(from, 0), 1 - this.size);
      for (const z of this.layers) {
        z.setAttribute("x", -100 * this.from / this.size + "%");
        z.setAttribute("width", 100 / this.size + "%");
      }
      this.changed();
    }
    zoom(by, at = 0.5) { this.show(this.from + at * this.size * (1 - by), this.size * by); }
    move(by) { this.show(this.from + by * this.size, this.size); }
    all() { this.show(0, 1); }
  }

  const tools = (root, buttons) => {
    const bar = make("div", { class: "tools" });
    for (const [text, label, act] of buttons) {
      const b = make("button", { type: "button", "aria-label": label, title: label }, text);
      b.addEventListener("click", act);
      bar.append(b);
    }
    root.before(bar);
    return bar;
  };

  const units = [[36e11, "h"], [6e10, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];
  const duration = (ns, step) => {
    if (ns === 0) return "0";
    const [unit, name] = units.find(([u]) => step >= u || u === 1);
    return +(ns / unit).toFixed(3) + " " + name;
  };
  const steps = units.flatMap(([u, n]) => (n === "min" || n === "h" ? [1, 2, 5, 10, 20, 30] : [1, 2, 5, 10, 20, 50, 100, 200, 500]).map(f => f * u)).sort((a, b) => a - b);

  const timeline = root => {
    const span = +root.dataset.span, ticks = root.querySelector(".ticks");
    const axis = () => {
      const step = steps.find(s => view.size * span / s <= 5) ?? span;
      const svg = (name, attributes, text) => {
        const e = document.createElementNS("http://www.w3.org/2000/svg", name);
        for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
        if (text) e.textContent = text;
        return e;
      };
      const marks = [];
      for (let at = Math.ceil(view.from * span / step) * step; at <= (view.from + view.size) * span; at += step) {
        const share = (at / span - view.from) / view.size, x = 100 * share + "%";
        const anchor = share < 0.04 ? "start" : share > 0.96 ? "end" : "middle";
        marks.push(svg("line", { x1: x, x2: x, y1: 0, y2: 4 }), svg("text", { x, y: 16, "text-anchor": anchor }, duration(at, step)));
      }
      ticks.replaceChildren(...marks);
    };
    const view = new View(root, 1e-4, axis);
    tools(root, [
      ["+", "zoom in", () => view.zoom(0.5)], ["−", "zoom out", () => view.zoom(2)],
      ["←", "earlier", () => view.move(-0.25)], ["→", "later", () => view.move(0.25)], ["all", "show all", () => view.all()],
    ]);
    const share = e => {
      const box = root.getBoundingClientRect();
      return (e.clientX - box.left) / box.width;
    };
    root.addEventListener("wheel", e => {
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      view.zoom(e.deltaY < 0 ? 0.8 : 1.25, share(e));
    }, { passive: false });
    root.addEventListener("dblclick", e => view.zoom(0.5, share(e)));
    let held = null, moved = false;
    root.addEventListener("pointerdown", e => { held = view.size < 1 ? share(e) : null; moved = false; });
    root.addEventListener("pointermove", e => {
      if (held === null || !e.buttons) return;
      const now = share(e);
      moved ||= Math.abs(now - held) > 0.01;
      if (!moved) return;
      view.move(held - now);
      held = now;
    });
    root.addEventListener("click", e => {
      const link = e.target.dataset.link;
      if (link && !moved) location.hash = link;
      moved = false;
      held = null;
    });
    root.addEventListener("keydown", e => {
      const act = { "+": () => view.zoom(0.5), "=": () => view.zoom(0.5), "-": () => view.zoom(2), "0": () => view.all(), ArrowLeft: () => view.move(-0.25), ArrowRight: () => view.move(0.25) }[e.key];
      if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      act();
    });
  };

  const flame = root => {
    const frames = [...root.querySelectorAll(".frame")].map(el => {
      const text = el.querySelector("text"), left = +el.dataset.left, width = +el.dataset.width;
      return { el, text, name: text.textContent, title: el.querySelector("title").textContent, left, width, depth: +el.getAttribute("y") };
    });
    if (!frames.length) return;
    const letter = 6.7;
    const fit = () => {
      const wide = root.clientWidth;
      for (const f of frames) {
        const room = Math.floor((f.width / view.size * wide - 6) / letter);
        f.text.textContent = room >= f.name.length ? f.name : room < 3 ? "" : f.name.slice(0, room - 1) + "…";
      }
    };
    const view = new View(root, 1e-4, fit);
    const said = make("output", {}), search = make("input", { type: "search", placeholder: "Search functions", "aria-label": "search functions" });
    tools(root, [["all", "show all", () => select(frames[0], true)]]).append(search, said);
    let here = frames[0];
    const select = (f, zoom) => {
      here.el.classList.remove("here");
      here = f;
      here.el.classList.add("here");
      said.textContent = here.title;
      if (zoom) view.show(here.left, here.width);
    };
    const inside = (f, g) => g.left >= f.left - 1e-6 && g.left < f.left + f.width - 1e-6;
    const near = {
      ArrowDown: () => frames.find(g => g.depth > here.depth && inside(here, g)),
      ArrowUp: () => frames.find(g => g.depth === here.depth - frames[0].el.height.baseVal.value - 1 && inside(g, here)),
      ArrowRight: () => frames.filter(g => g.depth === here.depth && g.left > here.left + 1e-6).sort((a, b) => a.left - b.left)[0],
      ArrowLeft: () => frames.filter(g => g.depth === here.depth && g.left < here.left - 1e-6).sort((a, b) => b.left - a.left)[0],
    };
    root.addEventListener("keydown", e => {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (near[e.key]) {
        const to = near[e.key]();
        if (to) select(to, false);
      } else if (e.key === "Enter") select(here, true);
      else if (e.key === "Escape") select(frames[0], true);
      else return;
      e.preventDefault();
    });
    root.addEventListener("click", e => {
      const f = frames.find(f => f.el === e.target.closest(".frame"));
      if (f) select(f, true);
    });
    search.addEventListener("input", () => {
      const what = search.value.trim().toLowerCase();
      let share = 0, end = -1;
      const found = frames.filter(f => what && f.name.toLowerCase().includes(what)).sort((a, b) => a.left - b.left);
      for (const f of frames) f.el.classList.toggle("found", found.includes(f));
      for (const f of found) {
        share += Math.max(0, f.left + f.width - Math.max(end, f.left));
        end = Math.max(end, f.left + f.width);
      }
      said.textContent = what ? `${found.length} found, ${(100 * share).toPrecision(3)} % of all` : "";
    });
    new ResizeObserver(fit).observe(root);
    fit();
  };

  const start = () => {
    document.querySelectorAll(".timeline").forEach(timeline);
    document.querySelectorAll(".flame").forEach(flame);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
