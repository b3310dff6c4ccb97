"""The script of the report pages: tooltips, the keyboard, toggling of what a legend names, zooming.

It goes into the page as text and needs nothing from elsewhere. Without it every mark still has its <title>, and legends
are lists. Texts of files are only ever set as textContent. Next: page.py.
"""

from __future__ import annotations

SCRIPT = """
(() => {
  "use strict";
  const SVG = document.querySelector("svg").namespaceURI;
  const tip = document.getElementById("tip");
  const texts = new Map();
  const plots = [...document.querySelectorAll("svg.plot")].map((svg) => {
    const marks = [...svg.querySelectorAll(".mark")].map((node) => {
      const title = node.querySelector("title");
      const text = title.textContent;
      title.remove();
      if (node.dataset.s && text.includes("\\n")) texts.set(node.dataset.s, text);
      const width = node.width.baseVal.value;
      return { node, text, key: node.dataset.s, column: node.classList.contains("column"), off: false,
        group: node.parentNode, x: node.x.baseVal.value + width / 2, y: node.y.baseVal.value };
    });
    marks.sort((a, b) => a.x - b.x || a.y - b.y);
    const byKey = new Map(marks.map((mark) => [mark.key, mark]));
    return { svg, marks, byKey, halo: svg.querySelector(".halo"), active: null };
  });
  const make = (name, attributes, text) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const seen = (mark) => !mark.off && !mark.group.classList.contains("gone");

  // tooltips: the same network is ringed in every plot
  const ring = (plot, mark) => {
    const on = Boolean(mark) && !mark.column && seen(mark);
    plot.halo.classList.toggle("on", on);
    if (!on) return;
    plot.halo.setAttribute("cx", mark.x);
    plot.halo.setAttribute("cy", mark.y);
  };
  const hide = () => {
    tip.hidden = true;
    for (const plot of plots) {
      if (plot.active) plot.active.node.classList.remove("on");
      plot.active = null;
      ring(plot, null);
    }
  };
  const show = (plot, mark) => {
    if (plot.active === mark && !tip.hidden) return;
    hide();
    plot.active = mark;
    mark.node.classList.add("on");
    tip.textContent = (texts.get(mark.key) || mark.text).replaceAll("/", "/\u200b");
    tip.hidden = false;
    for (const other of mark.key ? plots : []) ring(other, other.byKey.get(mark.key));
    const at = new DOMPoint(mark.x, mark.y).matrixTransform(plot.svg.getScreenCTM());
    const box = tip.getBoundingClientRect();
    const above = at.y - box.height - 14;
    tip.style.left = Math.max(12, Math.min(at.x - box.width / 2, innerWidth - box.width - 12)) + "px";
    tip.style.top = (above > 8 ? above : at.y + 16) + "px";
  };
  const spot = (plot, event) =>
    new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());
  const nearest = (plot, event) => {
    const at = spot(plot, event);
    let best = null;
    let least = event.pointerType === "touch" ? 28 : 14;
    for (const mark of plot.marks) {
      const away = mark.column ? Math.abs(mark.x - at.x) : Math.hypot(mark.x - at.x, mark.y - at.y);
      if (away < least && seen(mark)) { least = away; best = mark; }
    }
    return best;
  };

  // legends: an entry shows and hides what bears its class
  const toggles = (figure) => {
    const gone = new Set();
    for (const entry of figure.querySelectorAll("[data-series]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...entry.childNodes);
      entry.append(button);
      button.addEventListener("click", () => {
        const series = entry.dataset.series;
        if (!gone.delete(series)) gone.add(series);
        button.setAttribute("aria-pressed", String(!gone.has(series)));
        for (const node of figure.querySelectorAll(".area > *, .labels > *"))
          node.classList.toggle("gone", [...gone].some((name) => node.classList.contains(name)));
        hide();
      });
    }
  };
  document.querySelectorAll("figure").forEach(toggles);

  // zooming: marks move and keep their size, lines are stretched, ticks are drawn anew
  const ticksOf = (low, high) => {
    const raw = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10, 20].map((factor) => factor * power).find((value) => value >= raw * (1 - 1e-9));
    const decimals = Math.min(15, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    const found = [];
    for (let place = Math.ceil(low / step - 1e-9); place <= Math.floor(high / step + 1e-9); place += 1)
      found.push([place * step, (place * step).toFixed(decimals)]);
    return found;
  };
  const zoomable = (plot) => {
    const { svg } = plot;
    const [xs, ys] = ["x", "y"].map((axis) => {
      const [low, high, start, end] = svg.dataset[axis].split(" ").map(Number);
      return { low, high, start, end };
    });
    const axes = svg.querySelector(".axes");
    const area = svg.querySelector(".area");
    const kept = [...axes.childNodes];
    const uses = [...area.querySelectorAll("use")].map((node) =>
      ({ node, x: node.x.baseVal.value, y: node.y.baseVal.value }));
    const lines = [...area.children].filter((node) => node.tagName !== "g");
    const whole = { x: [xs.low, xs.high], y: [ys.low, ys.high] };
    let view = whole;
    const value = (s, at) => s.low + (at - s.start) / (s.end - s.start) * (s.high - s.low);
    const linear = (s, [low, high]) => {
      const factor = (s.high - s.low) / (high - low);
      return [factor, s.start - factor * (s.start + (low - s.low) / (s.high - s.low) * (s.end - s.start))];
    };
    const back = document.createElement("button");
    back.type = "button";
    back.textContent = "whole plot";
    const item = document.createElement("li");
    item.className = "back";
    item.hidden = true;
    item.append(back);
    const legend = svg.closest("figure").querySelector(".legend");
    if (legend) legend.append(item);
    const drawAxes = () => {
      if (view === whole) { axes.replaceChildren(...kept); return; }
      const titles = kept.filter((node) => node.matches(".axis, .axis-title"));
      const drawn = [];
      for (const [at, text] of ticksOf(...view.x)) {
        const x = xs.start + (at - view.x[0]) / (view.x[1] - view.x[0]) * (xs.end - xs.start);
        drawn.push(make("line", { x1: x, x2: x, y1: ys.start, y2: ys.start + 4, class: "tick" }));
        drawn.push(make("text", { x, y: ys.start + 18, class: "x-tick", "text-anchor": "middle" }, text));
      }
      for (const [at, text] of ticksOf(...view.y)) {
        const y = ys.start + (at - view.y[0]) / (view.y[1] - view.y[0]) * (ys.end - ys.start);
        drawn.push(make("line", { x1: xs.start, x2: xs.end, y1: y, y2: y, class: "grid" }));
        drawn.push(make("text", { x: xs.start - 7, y: y + 4, class: "y-tick", "text-anchor": "end" }, text));
      }
      axes.replaceChildren(...drawn, ...titles);
    };
    const apply = (wanted) => {
      view = wanted;
      hide();
      const [a, b] = linear(xs, view.x);
      const [c, d] = linear(ys, view.y);
      const moved = new Map();
      for (const use of uses) {
        const [x, y] = [a * use.x + b, c * use.y + d];
        const off = x < xs.start - 1 || x > xs.end + 1 || y > ys.start + 1 || y < ys.end - 1;
        use.node.setAttribute("x", x.toFixed(1));
        use.node.setAttribute("y", y.toFixed(1));
        moved.set(use.node, { x, y, off: off && view !== whole });
      }
      for (const mark of plot.marks) Object.assign(mark, moved.get(mark.node));
      for (const node of lines) node.setAttribute("transform", `matrix(${a} 0 0 ${c} ${b} ${d})`);
      svg.classList.toggle("zoomed", view !== whole);
      item.hidden = view === whole;
      drawAxes();
    };
    const least = { x: (xs.high - xs.low) / 1e4, y: (ys.high - ys.low) / 1e4 };
    const range = (low, high, size) => high - low >= size;
    const zoom = (x, y) => {
      if (range(...x, least.x) && range(...y, least.y)) apply({ x, y });
    };
    const current = (s, axis, at) => {
      const share = (at - s.start) / (s.end - s.start);
      return view[axis][0] + Math.min(1, Math.max(0, share)) * (view[axis][1] - view[axis][0]);
    };
    let from = null;
    let brush = null;
    const stop = () => { if (brush) brush.remove(); from = brush = null; };
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button !== 0) return;
      from = spot(plot, event);
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => {
      if (!from) return;
      if (!(event.buttons & 1)) { stop(); return; }
      const to = spot(plot, event);
      if (!brush && Math.hypot(to.x - from.x, to.y - from.y) < 6) return;
      if (!brush) {
        brush = make("rect", { class: "brush" });
        svg.append(brush);
        svg.setPointerCapture(event.pointerId);
      }
      hide();
      for (const [name, size] of [["x", "width"], ["y", "height"]]) {
        brush.setAttribute(name, Math.min(from[name], to[name]));
        brush.setAttribute(size, Math.abs(from[name] - to[name]));
      }
    });
    svg.addEventListener("pointerup", (event) => {
      const to = spot(plot, event);
      if (brush) {
        const x = [from.x, to.x].map((at) => current(xs, "x", at)).sort((p, q) => p - q);
        const y = [from.y, to.y].map((at) => current(ys, "y", at)).sort((p, q) => p - q);
        zoom(x, y);
      }
      stop();
    });
    svg.addEventListener("pointercancel", stop);
    svg.addEventListener("dblclick", () => apply(whole));
    back.addEventListener("click", () => apply(whole));
    svg.addEventListener("keydown", (event) => {
      if (event.key === "0") apply(whole);
      if (event.key !== "+" && event.key !== "-") return;
      const factor = event.key === "+" ? 0.25 : 1;
      const at = plot.active || { x: (xs.start + xs.end) / 2, y: (ys.start + ys.end) / 2 };
      const part = (s, axis, place) => {
        const half = factor * (view[axis][1] - view[axis][0]);
        const middle = current(s, axis, place);
        return [Math.max(whole[axis][0], middle - half), Math.min(whole[axis][1], middle + half)];
      };
      zoom(part(xs, "x", at.x), part(ys, "y", at.y));
    });
    plot.dragging = () => Boolean(brush);
  };

  for (const plot of plots) {
    if (!plot.marks.length) continue;
    if (plot.svg.dataset.x) zoomable(plot);
    const point = (event) => {
      if (plot.dragging && plot.dragging()) return;
      const mark = nearest(plot, event);
      if (mark) show(plot, mark); else hide();
    };
    plot.svg.setAttribute("tabindex", "0");
    plot.svg.setAttribute("role", "group");
    plot.svg.setAttribute("aria-roledescription", "plot; arrow keys go from mark to mark, + and 0 zoom");
    plot.svg.addEventListener("pointermove", point);
    plot.svg.addEventListener("pointerdown", point);
    plot.svg.addEventListener("pointerleave", hide);
    plot.svg.addEventListener("blur", hide);
    plot.svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const marks = plot.marks.filter(seen);
      if (!marks.length) return;
      const from = plot.active ? marks.indexOf(plot.active) : step > 0 ? -1 : marks.length;
      show(plot, marks[Math.max(0, Math.min(marks.length - 1, from + step))]);
    });
  }
  addEventListener("scroll", hide, { passive: true });
})();
"""
